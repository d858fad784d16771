// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/cache"
)

// lab is a scanner over a bucket in a directory, and the segments that were written into it.
type lab struct {
	dir      string
	segments []Segment
	scanner  *Scanner
}

type directoryStore struct{ bucket objects.Bucket }

func (s directoryStore) Bucket(context.Context, string) (objects.Bucket, error) { return s.bucket, nil }

func newLab(t testing.TB, o Options) *lab {
	t.Helper()
	l := &lab{dir: t.TempDir()}
	bucket, err := objects.Open(t.Context(), objects.Location{Provider: "file", Name: "lake", Directory: l.dir})
	if err != nil {
		t.Fatal(err)
	}
	parse := func(b []byte) (any, error) { return metricfile.ReadCatalogue(b) }
	c, err := cache.Open(cache.Options[any]{Dir: t.TempDir(), Bytes: 10 << 30, ParsedBytes: 1 << 30, Parse: parse}, directoryStore{bucket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if o.Parallel == 0 {
		o.Parallel = 2
	}
	l.scanner = New(cache.Of[*metricfile.Catalogue]{Cache: c}, o)
	return l
}

// write writes points of a store as segments, one for each hour and shard.
func (l *lab) write(t testing.TB, st *metricfile.Store, shards uint32) []int {
	t.Helper()
	type part struct {
		hour  time.Time
		shard lake.Shard
	}
	parts := map[part][]uint32{}
	for row := range st.Len() {
		p := part{time.Unix(0, st.Time(row)).UTC().Truncate(time.Hour), lake.Shard{}}
		if shards > 1 {
			p.shard = lake.Shard{Index: uint32(st.SeriesOf(row).Hash() & uint64(shards-1)), Count: shards}
		}
		parts[p] = append(parts[p], uint32(row))
	}
	var numbers []int
	for p, rows := range parts {
		numbers = append(numbers, l.segment(t, st, rows, metricfile.Meta{Window: lake.Window{Start: p.hour, Length: time.Hour}, Shard: p.shard}))
	}
	return numbers
}

// segment writes one segment and returns its place among l.segments.
func (l *lab) segment(t testing.TB, st *metricfile.Store, rows []uint32, m metricfile.Meta) int {
	t.Helper()
	m.Organization, m.Signal, m.Lease, m.Sources = "acme", lake.SignalMetrics, "lease", []lake.ReceiptID{1, 2, 3, 4, 5, 6}
	var file, sidecar bytes.Buffer
	written, err := metricfile.Write(t.Context(), &file, &sidecar, st, rows, m)
	if err != nil {
		t.Fatal(err)
	}
	return l.put(t, &file, &sidecar, written, m)
}

func (l *lab) put(t testing.TB, file, sidecar *bytes.Buffer, written metricfile.Written, m metricfile.Meta) int {
	t.Helper()
	key := fmt.Sprintf("db/acme/metrics/%06d.parquet", len(l.segments))
	for name, content := range map[string][]byte{key: file.Bytes(), lake.SidecarKey(key): sidecar.Bytes()} {
		path := filepath.Join(l.dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l.segments = append(l.segments, Segment{
		File:    cache.Object{Bucket: "lake", Key: key, Bytes: int64(file.Len())},
		Sidecar: cache.Object{Bucket: "lake", Key: lake.SidecarKey(key), Bytes: int64(sidecar.Len())},
		First:   written.First.UnixNano(), Last: written.Last.UnixNano(), Shard: m.Shard, Resolution: m.Resolution,
	})
	return len(l.segments) - 1
}

// add puts series into a store as floats and native histograms.
func add(st *metricfile.Store, series []prom.Series, source lake.ReceiptID) {
	at := func(ms int64, starts []int64, i int) metricfile.Stamp {
		s := metricfile.Stamp{Time: ms * 1_000_000, Source: source}
		if starts != nil {
			s.Start = starts[i] * 1_000_000
		}
		return s
	}
	for i := range series {
		s := &series[i]
		if len(s.Times) > 0 {
			id := st.Series(&metricfile.Series{Labels: s.Labels, Kind: metricfile.KindFloat, Delta: s.Delta})
			for n, t := range s.Times {
				st.Float(id, at(t, s.Starts, n), s.Values[n])
			}
		}
		if len(s.Histograms) > 0 {
			id := st.Series(&metricfile.Series{Labels: s.Labels, Kind: metricfile.KindHistogram, Delta: s.Delta})
			for n, t := range s.HistogramTimes {
				st.Histogram(id, at(t, s.HistogramStarts, n), plainHint(s.Histograms[n]))
			}
		}
	}
}

// plainHint is a histogram as ingest has it: reset hints are derived when it is read.
func plainHint(h *histogram.FloatHistogram) *histogram.FloatHistogram {
	h = h.Copy()
	if h.CounterResetHint != histogram.GaugeType {
		h.CounterResetHint = histogram.UnknownCounterReset
	}
	return h
}

// scan begins a scan over all segments.
func (l *lab) scan(t testing.TB, deletes ...Delete) *Scan {
	t.Helper()
	s := l.scanner.Begin(t.Context(), l.segments, 0, deletes...)
	t.Cleanup(s.End)
	return s
}

func matcher(name, value string) *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchEqual, name, value)
}
