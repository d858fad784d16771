// SPDX-License-Identifier: AGPL-3.0-only

package query

import (
	"context"
	"errors"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/metrics"
)

// maxRemarks is how many warnings, and how many infos, an answer has, as Prometheus'.
const maxRemarks = 10

// EvaluateMetrics answers a PromQL query.
func (f *Frontend) EvaluateMetrics(ctx context.Context, req MetricRequest) (MetricAnswer, error) {
	r, err := f.beginMetrics(ctx, req)
	if err != nil {
		return MetricAnswer{}, err
	}
	result, err := r.session.Evaluate(r.ctx, metrics.Request{
		Query: r.plan, Request: prom.Request{Start: req.Start, End: req.End, Step: req.Step},
	})
	if err != nil {
		err = r.named(err)
		return MetricAnswer{Statistics: r.end(err)}, err
	}
	answer := MetricAnswer{Value: result.Value, Resolution: result.Resolution, Bound: result.Bound}
	answer.Warnings, answer.Infos = result.Annotations.AsStrings(req.Query, maxRemarks, maxRemarks)
	answer.Samples = SampleStatistics{Read: result.Counts.Read, Total: result.Counts.Total, Peak: result.Counts.Peak}
	var cut bool
	if answer.Value, cut = truncated(answer.Value, req.Limit); cut {
		answer.Warnings = append(answer.Warnings, "results truncated due to limit")
	}
	r.returned.Store(samplesIn(answer.Value))
	r.resolution = result.Resolution
	answer.Statistics = r.end(nil)
	return answer, nil
}

// named says of a query that has met a limit which one that was, where who met it does not know.
func (r *metricRun) named(err error) error {
	switch {
	case r.timeout > 0 && errors.Is(r.ctx.Err(), context.DeadlineExceeded):
		return fault.New(fault.Timeout,
			"query timed out after %s (limit query_timeout, or the timeout of the request if that is shorter); narrow the time range or the selector, or make the step longer", r.timeout)
	case errors.Is(err, fault.Exhausted) && strings.Contains(err.Error(), tooManySamples) && !strings.Contains(err.Error(), "max_query_samples"):
		return fault.New(fault.Exhausted, "%w (limit max_query_samples)", err)
	}
	return err
}

// tooManySamples is what Prometheus' engine says, here and in workers.
const tooManySamples = "too many samples"

// truncated cuts an answer to a number of series; zero: to none.
func truncated(v parser.Value, most int) (parser.Value, bool) {
	switch data := v.(type) {
	case prom.Matrix:
		if most > 0 && len(data) > most {
			return data[:most], true
		}
	case prom.Vector:
		if most > 0 && len(data) > most {
			return data[:most], true
		}
	}
	return v, false
}

func samplesIn(v parser.Value) int64 {
	switch data := v.(type) {
	case prom.Matrix:
		return int64(data.TotalSamples())
	case prom.Vector:
		return int64(len(data))
	}
	return 1
}
