// SPDX-License-Identifier: AGPL-3.0-only

package promhttp

import (
	"net/http"
	"runtime"
)

// prometheusVersion is the release of Prometheus whose language and API are served; clients choose features by it.
const prometheusVersion = "3.15.0"

// buildInfo has no features: with some, Grafana would take this for Mimir.
func (a *API) buildInfo(*http.Request) (answer, error) {
	return answer{data: value(map[string]string{
		"version": prometheusVersion, "revision": a.version, "branch": "lakerunner", "buildUser": "", "buildDate": "", "goVersion": runtime.Version(),
	})}, nil
}

// rules answers that there are none.
func (a *API) rules(*http.Request) (answer, error) {
	return answer{data: value(map[string]any{"groups": []any{}})}, nil
}

// alerts answers that there are none.
func (a *API) alerts(*http.Request) (answer, error) {
	return answer{data: value(map[string]any{"alerts": []any{}})}, nil
}

// targets answers that nothing is scraped: samples come as objects.
func (a *API) targets(*http.Request) (answer, error) {
	return answer{data: value(map[string]any{"activeTargets": []any{}, "droppedTargets": []any{}, "droppedTargetCounts": map[string]int{}})}, nil
}
