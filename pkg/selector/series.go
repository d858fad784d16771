// SPDX-License-Identifier: AGPL-3.0-only

package selector

import (
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
)

// SeriesSelector is a parsed Prometheus series selector. It is safe for concurrent use.
type SeriesSelector struct {
	text     string
	matchers []*labels.Matcher
	// shared are those of labels that all Prometheus series of a row have alike; own are the others: of the name, le and quantile.
	shared, own []*labels.Matcher
}

// ParseSeries parses a series selector, x{pod=~"y"} or {__name__="x"}, of which one matcher must not match the empty value. The error is
// fault.Invalid and names the place.
func ParseSeries(text string) (*SeriesSelector, error) {
	matchers, err := parser.NewParser(parser.Options{}).ParseMetricSelector(text)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	s := &SeriesSelector{text: text, matchers: matchers}
	chooses := false
	for _, m := range matchers {
		chooses = chooses || !m.Matches("")
		switch m.Name {
		case model.MetricNameLabel, metricfile.BucketLabel, metricfile.QuantileLabel:
			s.own = append(s.own, m)
		default:
			s.shared = append(s.shared, m)
		}
	}
	if !chooses {
		return nil, fault.New(fault.Invalid, "a series selector must contain at least one matcher that does not match the empty value: %s", text)
	}
	return s, nil
}

// String returns the text that was parsed.
func (s *SeriesSelector) String() string { return s.text }

// Matchers returns the selector's matchers, which are not to be changed.
func (s *SeriesSelector) Matchers() []*labels.Matcher { return s.matchers }

// Matches reports whether the selector chooses a row of a metric segment: whether it finds at least one of the Prometheus series that the row
// stands for. A row is chosen whole: who asks for x_bucket, x_sum or x_count of a classic histogram or summary x, or for one value of le or quantile,
// chooses the histograms or summaries with all their series. The name x alone finds no series of a classic histogram, as in a query.
func (s *SeriesSelector) Matches(row *metricfile.Series) bool {
	if !matchAll(s.shared, row.Labels) {
		return false
	}
	switch row.Kind {
	case metricfile.KindClassic, metricfile.KindSummary:
		return s.matchesTracks(row)
	}
	return matchAll(s.own, row.Labels)
}

func matchAll(matchers []*labels.Matcher, l labels.Labels) bool {
	for _, m := range matchers {
		if !m.Matches(l.Get(m.Name)) {
			return false
		}
	}
	return true
}

// matchesTracks goes through the series of a row as metricfile.Series.Tracks has them.
func (s *SeriesSelector) matchesTracks(row *metricfile.Series) bool {
	if len(s.own) == 0 {
		return true
	}
	name := row.Name()
	if s.matchesTrack(row, name+metricfile.CountSuffix, "", "") || !row.NoSum && s.matchesTrack(row, name+metricfile.SumSuffix, "", "") {
		return true
	}
	label := metricfile.QuantileLabel
	if row.Kind == metricfile.KindClassic {
		name, label = name+metricfile.BucketSuffix, metricfile.BucketLabel
		if s.matchesTrack(row, name, label, "+Inf") {
			return true
		}
	}
	for _, bound := range row.Bounds {
		if s.matchesTrack(row, name, label, metricfile.FormatBound(bound)) {
			return true
		}
	}
	return false
}

// matchesTrack decides on the series of this name which has one label more, if that is not empty.
func (s *SeriesSelector) matchesTrack(row *metricfile.Series, name, label, value string) bool {
	for _, m := range s.own {
		found := row.Labels.Get(m.Name)
		switch m.Name {
		case model.MetricNameLabel:
			found = name
		case label:
			found = value
		}
		if !m.Matches(found) {
			return false
		}
	}
	return true
}
