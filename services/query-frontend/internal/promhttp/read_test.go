// SPDX-License-Identifier: AGPL-3.0-only

package promhttp_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	promconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/prom"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/workertest"
)

// reader is Prometheus' client of remote read.
func (l *lab) reader(accepted ...prompb.ReadRequest_ResponseType) remote.ReadClient {
	l.t.Helper()
	address, err := url.Parse(l.url + "/prometheus/api/v1/read")
	if err != nil {
		l.t.Fatal(err)
	}
	client, err := remote.NewReadClient("test", &remote.ClientConfig{
		URL: &promconfig.URL{URL: address}, Timeout: model.Duration(time.Minute), ChunkedReadLimit: 50 << 20, AcceptedResponseTypes: accepted,
		HTTPClientConfig: promconfig.HTTPClientConfig{BasicAuth: &promconfig.BasicAuth{Username: "anybody", Password: secret}},
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return client
}

// readAll asks by matchers, and returns all samples by series.
func (l *lab) readAll(client remote.ReadClient, start, end int, matchers ...*labels.Matcher) (map[string]string, error) {
	l.t.Helper()
	asked, err := remote.ToQuery(from.UnixMilli()+int64(start)*1000, from.UnixMilli()+int64(end)*1000, matchers, &storage.SelectHints{})
	if err != nil {
		l.t.Fatal(err)
	}
	set, err := client.Read(l.t.Context(), asked, false)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	var it chunkenc.Iterator
	for set.Next() {
		one := set.At()
		it = one.Iterator(it)
		var b strings.Builder
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			if kind == chunkenc.ValFloat {
				at, v := it.At()
				fmt.Fprintf(&b, "%d %v\n", at, v)
				continue
			}
			at, h := it.AtFloatHistogram(nil)
			fmt.Fprintf(&b, "%d %v\n", at, h.Compact(0))
		}
		if it.Err() != nil {
			return nil, it.Err()
		}
		out[one.Labels().String()] += b.String()
	}
	return out, set.Err()
}

// written are series as readAll reads them.
func written(series ...prom.Series) map[string]string {
	out := map[string]string{}
	for _, s := range series {
		var b strings.Builder
		for i, at := range s.Times {
			fmt.Fprintf(&b, "%d %v\n", at, s.Values[i])
		}
		for i, at := range s.HistogramTimes {
			fmt.Fprintf(&b, "%d %v\n", at, s.Histograms[i].Copy().Compact(0))
		}
		out[s.Labels.String()] = b.String()
	}
	return out
}

// long are series of several chunks, and histograms whose buckets change.
func long() []prom.Series {
	floats := prom.Series{Labels: labels.FromStrings(model.MetricNameLabel, "long", "n", "1")}
	for i := range 1000 {
		floats.Times, floats.Values = append(floats.Times, from.UnixMilli()+int64(i)*500), append(floats.Values, float64(i)/7)
	}
	histograms := prom.Series{Labels: labels.FromStrings(model.MetricNameLabel, "long", "n", "2")}
	for i := range 300 {
		h := latencyAt(float64(i))
		if i > 100 {
			h = &histogram.FloatHistogram{Schema: 1, Count: 1, Sum: 2, PositiveSpans: []histogram.Span{{Offset: int32(i), Length: 1}}, PositiveBuckets: []float64{1}}
		}
		histograms.HistogramTimes, histograms.Histograms = append(histograms.HistogramTimes, from.UnixMilli()+int64(i)*1000), append(histograms.Histograms, h)
	}
	return []prom.Series{floats, histograms}
}

// TestRemoteRead reads with Prometheus' own client, in either form of answers.
func TestRemoteRead(t *testing.T) {
	t.Parallel()
	l := setup(t, "name: Acme")
	l.put(workertest.MetricSegment{Series: long()})
	equal := func(name, value string) *labels.Matcher { return labels.MustNewMatcher(labels.MatchEqual, name, value) }
	for form, accepted := range map[string][]prompb.ReadRequest_ResponseType{
		"chunks":                   {prompb.ReadRequest_STREAMED_XOR_CHUNKS},
		"samples":                  {prompb.ReadRequest_SAMPLES},
		"as the client prefers it": {prompb.ReadRequest_STREAMED_XOR_CHUNKS, prompb.ReadRequest_SAMPLES},
	} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			l := l.of(t)
			client := l.reader(accepted...)
			compare := func(want, got map[string]string, err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("(-want +got):\n%.3000s", diff)
				}
			}
			got, err := l.readAll(client, 0, 3600, equal("n", "1"))
			compare(written(long()[0]), got, err)
			got, err = l.readAll(client, 0, 3600, labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, "long|up"), labels.MustNewMatcher(labels.MatchNotEqual, "n", "1"))
			compare(written(long()[1], scraped()[4]), got, err)
			part := scraped()[4]
			part.Trim(from.UnixMilli()+60_000, from.UnixMilli()+120_000)
			got, err = l.readAll(client, 60, 120, equal("instance", "a"))
			compare(written(part), got, err)
			got, err = l.readAll(client, 0, 3600, equal(model.MetricNameLabel, "nothing"))
			compare(map[string]string{}, got, err)
		})
	}
	t.Run("an error is one", func(t *testing.T) {
		t.Parallel()
		l := setup(t, "name: Acme")
		l.worker.Before = func(context.Context, *workerv1.ScanRequest) error {
			return fault.New(fault.MissingSegment, "segment 7 is gone")
		}
		for _, accepted := range []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS, prompb.ReadRequest_SAMPLES} {
			if got, err := l.readAll(l.reader(accepted), 0, 3600, equal(model.MetricNameLabel, "up")); err == nil || !strings.Contains(err.Error(), "segment 7 is gone") {
				t.Errorf("%v, %v", got, err)
			}
		}
		r := l.request("POST", "read", nil)
		l.refuses(r, refused{400, "bad_data", "...remote read request..."})
	})
}
