// SPDX-License-Identifier: AGPL-3.0-only

package promhttp

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	jsoniter "github.com/json-iterator/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/query"
)

func (a *API) labels(r *http.Request) (answer, error) {
	f := &form{request: r}
	start, end := f.span()
	matchers, limit := f.matchers(), f.limit()
	if f.err != nil {
		return answer{}, f.err
	}
	names, err := a.frontend.MetricLabels(r.Context(), matchers, start, end, limit)
	return namesAnswer(names), err
}

func namesAnswer(names query.Names) answer {
	all := names.All
	if all == nil {
		all = []string{}
	}
	return answer{data: value(all), warnings: names.Warnings, statistics: &names.Statistics}
}

// escapedName begins a label name whose characters are written as numbers, as a path cannot hold all of them.
const escapedName = "U__"

func (a *API) labelValues(r *http.Request) (answer, error) {
	name := r.PathValue("name")
	if strings.HasPrefix(name, escapedName) {
		name = model.UnescapeName(name, model.ValueEncodingEscaping)
	}
	if !model.UTF8Validation.IsValidLabelName(name) {
		return answer{}, fault.New(fault.Invalid, "invalid label name: %q", name)
	}
	f := &form{request: r}
	start, end := f.span()
	matchers, limit := f.matchers(), f.limit()
	if f.err != nil {
		return answer{}, f.err
	}
	values, err := a.frontend.MetricLabelValues(r.Context(), name, matchers, start, end, limit)
	return namesAnswer(values), err
}

func (a *API) series(r *http.Request) (answer, error) {
	if len(r.Form["match[]"]) == 0 {
		return answer{}, fault.New(fault.Invalid, "no match[] parameter provided")
	}
	f := &form{request: r}
	start, end := f.span()
	matchers, limit := f.matchers(), f.limit()
	if f.err != nil {
		return answer{}, f.err
	}
	found, err := a.frontend.MetricSeries(r.Context(), matchers, start, end, limit)
	if err != nil {
		return answer{}, err
	}
	data := func(s *jsoniter.Stream) {
		writeList(s, len(found.Series), func(i int) { writeLabels(s, found.Series[i].Labels) })
	}
	return answer{data: data, warnings: found.Warnings, statistics: &found.Statistics}, nil
}

// metadata is what is known of a metric family.
type metadata struct {
	Type string `json:"type"`
	Help string `json:"help"`
	Unit string `json:"unit"`
}

func (a *API) metadata(r *http.Request) (answer, error) {
	limit, err := number(r, "limit")
	if err != nil {
		return answer{}, err
	}
	perMetric, err := number(r, "limit_per_metric")
	if err != nil {
		return answer{}, err
	}
	f := &form{request: r}
	start, end := f.span()
	if f.err != nil {
		return answer{}, f.err
	}
	var matchers [][]*labels.Matcher
	name := r.FormValue("metric")
	if name != "" {
		// A histogram or summary is known by its base name, which none of its series has.
		matchers = [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, regexp.QuoteMeta(name)+"(_bucket|_sum|_count)?")}}
	}
	found, err := a.frontend.Metrics(r.Context(), matchers, start, end)
	if err != nil {
		return answer{}, err
	}
	all := map[string][]metadata{}
	for _, m := range found.All {
		known := all[m.Name]
		if name != "" && m.Name != name {
			continue
		}
		if known == nil && limit >= 0 && len(all) >= limit || perMetric > 0 && len(known) >= perMetric {
			continue
		}
		all[m.Name] = append(known, metadata{Type: m.Type, Help: m.Help, Unit: m.Unit})
	}
	return answer{data: value(all), statistics: &found.Statistics}, nil
}

// number reads a limit; none is -1.
func number(r *http.Request, parameter string) (int, error) {
	text := r.FormValue(parameter)
	if text == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fault.New(fault.Invalid, "%s must be a number", parameter)
	}
	return n, nil
}

// cardinality says what makes series. It is LakeRunner's own.
func (a *API) cardinality(r *http.Request) (answer, error) {
	f := &form{request: r}
	start, end := f.span()
	matchers, limit := f.matchers(), f.limit()
	if f.err == nil && limit > mostEntries {
		f.fail("limit", errors.New(fmt.Sprint("at most ", mostEntries)))
	}
	if f.err != nil {
		return answer{}, f.err
	}
	found, err := a.frontend.Cardinality(r.Context(), query.CardinalityRequest{Matchers: matchers, Start: start, End: end, Limit: limit})
	if err != nil {
		return answer{}, err
	}
	return answer{data: value(cardinalityOf(&found)), statistics: &found.Statistics}, nil
}

const mostEntries = 10_000

type cardinality struct {
	Series   int64               `json:"series"`
	New      int64               `json:"newSeries"`
	Vanished int64               `json:"vanishedSeries"`
	Samples  int64               `json:"samples"`
	Bytes    int64               `json:"bytes"`
	Metrics  []metricCardinality `json:"metrics"`
	Labels   []labelCardinality  `json:"labels"`
}

type metricCardinality struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Unit     string `json:"unit"`
	Series   int64  `json:"series"`
	New      int64  `json:"newSeries"`
	Vanished int64  `json:"vanishedSeries"`
	Samples  int64  `json:"samples"`
	Bytes    int64  `json:"bytes"`
}

type labelCardinality struct {
	Name   string             `json:"name"`
	Series int64              `json:"series"`
	Values int64              `json:"values"`
	Top    []valueCardinality `json:"top"`
}

type valueCardinality struct {
	Value  string `json:"value"`
	Series int64  `json:"series"`
}

func cardinalityOf(c *query.Cardinality) cardinality {
	out := cardinality{
		Series: c.Series, New: c.New, Vanished: c.Vanished, Samples: c.Samples, Bytes: c.Bytes,
		Metrics: []metricCardinality{}, Labels: []labelCardinality{},
	}
	for _, m := range c.Metrics {
		out.Metrics = append(out.Metrics, metricCardinality{
			Name: m.Name, Type: m.Type, Unit: m.Unit, Series: m.Series, New: m.New, Vanished: m.Vanished, Samples: m.Samples, Bytes: m.Bytes,
		})
	}
	for _, l := range c.Labels {
		label := labelCardinality{Name: l.Name, Series: l.Series, Values: l.Values, Top: []valueCardinality{}}
		for _, v := range l.Top {
			label.Top = append(label.Top, valueCardinality(v))
		}
		out.Labels = append(out.Labels, label)
	}
	return out
}
