// SPDX-License-Identifier: AGPL-3.0-only

package rollup

import (
	"fmt"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/metricfile"
)

// Rollups of logs count lines by service, level and fingerprint. They are rollups of a delta series for each of these, whose points would be the lines with
// their bytes as values: Count is the number of lines in a range, Sum that of their bytes. First, last, least and greatest are not kept. A line is in the bucket
// (a, b] of its time in nanoseconds, as LogQL's ranges have it.
const (
	LinesName        = "lakerunner_log_lines"
	ServiceLabel     = "service_name"
	LevelLabel       = "detected_level"
	FingerprintLabel = "fingerprint"
)

// Lines is the series of lines of a service and level with a fingerprint; an empty one: of those that are too many to be told apart.
func Lines(service, level, fingerprint string) *metricfile.Series {
	b := labels.NewScratchBuilder(4)
	for _, l := range [][2]string{{model.MetricNameLabel, LinesName}, {LevelLabel, level}, {FingerprintLabel, fingerprint}, {ServiceLabel, service}} {
		if l[1] != "" {
			b.Add(l[0], l[1])
		}
	}
	b.Sort()
	return &metricfile.Series{Labels: b.Labels(), Delta: true}
}

// Fingerprint writes a fingerprint as the label has it.
func Fingerprint(f int64) string { return fmt.Sprintf("%016x", uint64(f)) }
