// SPDX-License-Identifier: AGPL-3.0-only

package selector_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/selector"
)

func parseSeries(t *testing.T, text string) *selector.SeriesSelector {
	t.Helper()
	s, err := selector.ParseSeries(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// rows are one of each kind, by their names.
func rows() []*metricfile.Series {
	row := func(kind metricfile.Kind, name string, bounds ...float64) *metricfile.Series {
		return &metricfile.Series{Labels: labels.FromStrings("__name__", name, "job", "a", "pod", "p-1"), Kind: kind, Bounds: bounds}
	}
	noSum := row(metricfile.KindClassic, "nosum", 1)
	noSum.NoSum = true
	return []*metricfile.Series{
		row(metricfile.KindFloat, "up"), row(metricfile.KindClassic, "lat", 0.5, 1, math.Inf(1)), row(metricfile.KindSummary, "rpc", 0.5, 0.99),
		row(metricfile.KindHistogram, "exp"), noSum,
		{Labels: labels.FromStrings("__name__", "raw_bucket", "job", "b", "le", "0.5"), Kind: metricfile.KindFloat},
	}
}

func TestASeriesSelectorChoosesRowsOfWhichItFindsASeries(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`up`:                             "up",
		`up{pod="p-1"}`:                  "up",
		`up{pod="p-2"}`:                  "",
		`up{zone=""}`:                    "up",
		`up{zone!=""}`:                   "",
		`{__name__="up"}`:                "up",
		`{"up",pod=~"p.*"}`:              "up",
		`{__name__=~"u.|exp"}`:           "up exp",
		`{job="a"}`:                      "up lat rpc exp nosum",
		`{job=~".+"}`:                    "up lat rpc exp nosum raw_bucket",
		`lat`:                            "",
		`lat_bucket`:                     "lat",
		`lat_bucket{le="0.5"}`:           "lat",
		`lat_bucket{le="+Inf"}`:          "lat",
		`lat_bucket{le="7"}`:             "",
		`lat_bucket{le=""}`:              "",
		`lat_sum`:                        "lat",
		`lat_count{le=""}`:               "lat",
		`lat_count{le="1"}`:              "",
		`lat_count{pod!="p-1"}`:          "",
		`nosum_sum`:                      "",
		`nosum_count`:                    "nosum",
		`rpc`:                            "rpc",
		`rpc{quantile="0.99"}`:           "rpc",
		`rpc{quantile="0.9"}`:            "",
		`rpc{quantile=""}`:               "",
		`rpc_sum{quantile=""}`:           "rpc",
		`rpc_bucket`:                     "",
		`{le="0.5"}`:                     "lat raw_bucket",
		`{job="a", le=""}`:               "up lat rpc exp nosum",
		`{__name__=~".*_bucket"}`:        "lat nosum raw_bucket",
		`{__name__!~".*_count",job="a"}`: "up lat rpc exp nosum",
		`exp`:                            "exp",
		`exp_count`:                      "",
	} {
		s := parseSeries(t, text)
		var got []string
		for _, r := range rows() {
			found := s.Matches(r)
			if found {
				got = append(got, r.Name())
			}
			if byTracks := matchesATrack(s, r); found != byTracks {
				t.Errorf("%s of %s: %t, by its tracks %t", text, r.Name(), found, byTracks)
			}
		}
		if strings.Join(got, " ") != want || s.String() != text {
			t.Errorf("%s: got %v, want %s", text, got, want)
		}
	}
}

// matchesATrack is the meaning of Matches.
func matchesATrack(s *selector.SeriesSelector, row *metricfile.Series) bool {
	for _, track := range row.Tracks() {
		all := true
		for _, m := range s.Matchers() {
			all = all && m.Matches(track.Get(m.Name))
		}
		if all {
			return true
		}
	}
	return false
}

func TestParseSeriesRefuses(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		``:                       "",
		`{}`:                     "not match the empty value",
		`{a=~".*"}`:              "not match the empty value",
		`{a=""}`:                 "not match the empty value",
		`up[5m]`:                 "1:3",
		`rate(up[5m])`:           "1:5",
		`up offset 5m`:           "1:4",
		`{a="b"} |= "x"`:         "1:9",
		`{a=~"("}`:               "",
		`{__name__="x"`:          "",
		`{a="b"} or {c="d"}`:     "",
		`up{a="b", le="1"} == 1`: "",
	} {
		_, err := selector.ParseSeries(text)
		if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}
