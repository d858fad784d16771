// SPDX-License-Identifier: AGPL-3.0-only

package promhttp

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	jsoniter "github.com/json-iterator/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/util/jsonutil"

	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/query"
)

func (a *API) instant(r *http.Request) (answer, error) {
	f := &form{request: r}
	at := f.at("time", f.timeOf("time", time.Now()))
	req := a.requestOf(f)
	req.Start, req.End = at, at
	return a.evaluate(f, req)
}

// mostSteps is how many points a series may have beside the first: enough for a week at a minute's resolution, or a year at an hour's.
const mostSteps = 11_000

func (a *API) ranged(r *http.Request) (answer, error) {
	f := &form{request: r}
	req := a.requestOf(f)
	req.Start, req.End = f.at("start", f.mustTime("start")), f.at("end", f.mustTime("end"))
	if req.End.Before(req.Start) {
		f.fail("end", errors.New("end timestamp must not be before start time"))
	}
	step, err := parseDuration(r.FormValue("step"))
	if err == nil && step <= 0 {
		err = errors.New("zero or negative query resolution step widths are not accepted. Try a positive integer")
	}
	if err != nil {
		f.fail("step", err)
	}
	req.Step = step
	if f.err == nil && req.End.Sub(req.Start)/step > mostSteps {
		f.fail("step", errors.New("exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"))
	}
	return a.evaluate(f, req)
}

// requestOf reads what instant and range queries have in common.
func (a *API) requestOf(f *form) query.MetricRequest {
	return query.MetricRequest{
		Query: f.request.FormValue("query"), Limit: f.limit(), Timeout: f.duration("timeout"), Lookback: f.duration("lookback_delta"),
	}
}

func (a *API) evaluate(f *form, req query.MetricRequest) (answer, error) {
	f.checkQuery(&req)
	if f.err != nil {
		return answer{}, f.err
	}
	got, err := a.frontend.EvaluateMetrics(f.request.Context(), req)
	if err != nil {
		return answer{}, &evaluationError{err}
	}
	said := answer{warnings: got.Warnings, infos: got.Infos, statistics: &got.Statistics}
	if resolution := got.Resolution; resolution > 0 {
		said.infos = append(said.infos, resolutionInfo(resolution, got.Bound))
	}
	stats := f.request.FormValue("stats")
	if stats != "" && stats != "true" && stats != "all" {
		said.warnings = append(said.warnings, fmt.Sprintf(
			"value %q for parameter \"stats\" is deprecated and will be rejected in the next major release, use \"true\" or \"all\"", stats))
	}
	said.data = func(s *jsoniter.Stream) { writeResult(s, &got, stats != "") }
	return said, nil
}

// checkQuery says what is wrong with a query in the words of Prometheus, which names the parameter.
func (f *form) checkQuery(req *query.MetricRequest) {
	if f.err != nil {
		return
	}
	expr, err := prom.Parse(req.Query)
	if err == nil && req.Step > 0 {
		err = prom.Ranged(expr)
	}
	if err != nil {
		f.fail("query", err)
	}
}

// resolutionInfo says that a rollup answered, and how exactly.
func resolutionInfo(resolution time.Duration, bound float64) string {
	name := model.Duration(resolution).String()
	if bound == 0 {
		return fmt.Sprintf("lakerunner: answered from rollups of %s, exactly", name)
	}
	return fmt.Sprintf("lakerunner: answered from rollups of %s, with a relative error of at most %g", name, bound)
}

// statistics are what Prometheus says of a query when it is asked to.
type statistics struct {
	Timings map[string]float64 `json:"timings"`
	Samples map[string]int64   `json:"samples"`
}

func statisticsOf(got *query.MetricAnswer) statistics {
	seconds := got.Statistics.Duration.Seconds()
	return statistics{
		Timings: map[string]float64{
			"evalTotalTime": seconds, "execTotalTime": seconds, "innerEvalTime": seconds, "queryPreparationTime": 0, "resultSortTime": 0, "execQueueTime": 0,
		},
		Samples: map[string]int64{"totalQueryableSamples": got.Samples.Total, "samplesRead": got.Samples.Read, "peakSamples": got.Samples.Peak},
	}
}

func (a *API) exemplars(r *http.Request) (answer, error) {
	f := &form{request: r}
	start, end := f.span()
	if f.err != nil {
		return answer{}, f.err
	}
	got, err := a.frontend.Exemplars(r.Context(), r.FormValue("query"), start, end)
	if err != nil {
		return answer{}, err
	}
	return answer{data: func(s *jsoniter.Stream) { writeExemplars(s, got.Series) }, statistics: &got.Statistics}, nil
}

func writeExemplars(s *jsoniter.Stream, all []query.SeriesExemplars) {
	s.WriteArrayStart()
	for i := range all {
		if i > 0 {
			s.WriteMore()
		}
		s.WriteObjectStart()
		s.WriteObjectField("seriesLabels")
		writeLabels(s, all[i].Labels)
		s.WriteMore()
		s.WriteObjectField("exemplars")
		s.WriteArrayStart()
		for j := range all[i].Exemplars {
			if j > 0 {
				s.WriteMore()
			}
			writeExemplar(s, &all[i].Exemplars[j])
		}
		s.WriteArrayEnd()
		s.WriteObjectEnd()
	}
	s.WriteArrayEnd()
}

func writeExemplar(s *jsoniter.Stream, e *query.Exemplar) {
	s.WriteObjectStart()
	s.WriteObjectField("labels")
	writeLabels(s, e.Labels)
	s.WriteMore()
	s.WriteObjectField("value")
	jsonutil.MarshalFloat(e.Value, s)
	s.WriteMore()
	s.WriteObjectField("timestamp")
	jsonutil.MarshalTimestamp(e.Time, s)
	s.WriteObjectEnd()
}
