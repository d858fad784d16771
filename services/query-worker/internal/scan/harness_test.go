// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	kitlog "github.com/go-kit/log"
	"github.com/grafana/dskit/user"
	"github.com/grafana/loki/v3/pkg/iter"
	"github.com/grafana/loki/v3/pkg/logproto"
	"github.com/grafana/loki/v3/pkg/logql"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/engine"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/pkg/segfile"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/cache"
)

// fixture is a lake of a few segments and the same rows in memory.
type fixture struct {
	dir      string // of the bucket
	segments []Segment
	deletes  []Delete
	rows     []memoryRow
	scanner  *Scanner
}

// memoryRow is a row as Loki would have it.
type memoryRow struct {
	key      string // of its segment
	identity columns.Identity
	hash     uint64
	time     int64
	source   int64
	stream   labels.Labels
	metadata labels.Labels
	line     string
}

type directoryStore struct{ bucket objects.Bucket }

func (s directoryStore) Bucket(context.Context, string) (objects.Bucket, error) { return s.bucket, nil }

type duckDB struct{ *engine.Engine }

func (d duckDB) Query(ctx context.Context, sql string) (Batches, error) {
	return d.Engine.Query(ctx, sql)
}

func openScanner(t testing.TB, bucketDir string, options Options) *Scanner {
	t.Helper()
	bucket, err := objects.Open(t.Context(), objects.Location{Provider: "file", Name: "lake", Directory: bucketDir})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	db, err := engine.Open(t.Context(), engine.Config{Dir: dir, Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	c, err := cache.Open(cache.Options[*Contents]{
		Dir: filepath.Join(dir, "segments"), Bytes: 10 << 30, ParsedBytes: 1 << 30, Parse: ParseContents,
	}, directoryStore{bucket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); db.Close() })
	return New(c, duckDB{db}, options)
}

// write makes a segment of rows of one hour.
func (f *fixture) write(t testing.TB, key string, l *columns.Logs, rows []uint32, window lake.Window) {
	t.Helper()
	l.Sort(rows)
	var file, sidecar bytes.Buffer
	written, err := segfile.WriteLogs(t.Context(), &file, &sidecar, l, rows, segfile.Meta{
		Organization: "acme", Signal: lake.SignalLogs, Window: window, Lease: "lease", Sources: []lake.ReceiptID{1, 2, 3},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.put(t, key, file.Bytes())
	f.put(t, lake.SidecarKey(key), sidecar.Bytes())
	f.segments = append(f.segments, Segment{
		File:    cache.Object{Bucket: "lake", Key: key, Bytes: int64(file.Len())},
		Sidecar: cache.Object{Bucket: "lake", Key: lake.SidecarKey(key), Bytes: int64(sidecar.Len())},
		Rows:    written.Rows,
		First:   written.First.UnixNano(),
		Last:    written.Last.UnixNano(),
	})
}

func (f *fixture) put(t testing.TB, key string, content []byte) {
	t.Helper()
	path := filepath.Join(f.dir, filepath.FromSlash(key))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// began is the time of the first hour of test rows.
var began = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

const testHours = 3

// setup writes random rows as segments, some of each hour, and keeps them in memory.
func setup(t testing.TB, seed uint64, n int) *fixture {
	t.Helper()
	return setupOf(t, seed, shape{rows: n, pieces: 2})
}

// shape says what a fixture is like.
type shape struct {
	rows, pieces int // pieces: segments of each hour
	// padding are spaces behind each body, for segments of several row groups.
	padding int
	// identified is whether rows may be doubles of others.
	identified bool
}

func setupOf(t testing.TB, seed uint64, of shape) *fixture {
	t.Helper()
	f := &fixture{dir: t.TempDir()}
	rng := rand.New(rand.NewPCG(seed, 1))
	l := columns.NewLogs()
	g := newRowMaker(rng, l, of.identified)
	padding := strings.Repeat(" ", of.padding)
	type part struct{ hour, piece int }
	parts := map[part][]uint32{}
	for i := range of.rows {
		r := g.row()
		r.Body += padding
		l.Append(&r)
		hour := int((r.Time - began.UnixNano()) / int64(time.Hour))
		p := part{hour, rng.IntN(of.pieces)}
		parts[p] = append(parts[p], uint32(i))
		row := inMemory(l, i)
		row.key = segmentKey(hour, p.piece)
		f.rows = append(f.rows, row)
	}
	for p, rows := range parts {
		window := lake.Window{Start: began.Add(time.Duration(p.hour) * time.Hour), Length: time.Hour}
		f.write(t, segmentKey(p.hour, p.piece), l, rows, window)
	}
	slices.SortFunc(f.segments, func(a, b Segment) int { return cmp.Compare(a.File.Key, b.File.Key) })
	f.scanner = openScanner(t, f.dir, Options{Parallel: 2, Memory: 1 << 30, MaxSeries: 100_000, RangedFrom: 1, ColumnMemory: 1 << 20})
	return f
}

func segmentKey(hour, piece int) string {
	return fmt.Sprintf("db/acme/logs/2026-11-22/lease/%02d%02d.parquet", hour, piece)
}

// inMemory makes of a row what Loki would have been sent.
func inMemory(l *columns.Logs, i int) memoryRow {
	var r columns.LogRow
	l.Row(i, &r)
	slices.SortFunc(r.Attributes, func(a, b columns.Attribute) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Value.Kind, b.Value.Kind))
	})
	stream := l.StreamLabels(r.Stream)
	origin := l.OriginOf(r.Origin)
	metadata := columns.NewMetadata(origin, stream).Append(nil, &r)
	identity, _ := columns.IdentityOf(&origin, &r)
	return memoryRow{
		identity: identity, hash: l.RowHash(i),
		time: r.Time, source: int64(r.Source), line: strings.Clone(r.Body),
		stream: labelsOf(stream), metadata: labelsOf(metadata),
	}
}

// rowMaker makes rows that are awkward in the ways that matter to queries.
type rowMaker struct {
	rng     *rand.Rand
	streams []columns.StreamID
	origins []columns.OriginID
	// identified is whether rows may be doubles of others.
	identified bool
}

func text(s string) columns.Value { return columns.Value{Kind: columns.KindString, Str: s} }
func integer(n int64) columns.Value {
	return columns.Value{Kind: columns.KindInt, Num: uint64(n)}
}

var testServices = []string{"checkout", "frontend", "cart", "ad's"}

func newRowMaker(rng *rand.Rand, l *columns.Logs, identified bool) *rowMaker {
	g := &rowMaker{rng: rng, identified: identified}
	for i := range 10 {
		service, pod := testServices[i%len(testServices)], fmt.Sprintf("p-%d", i)
		ls := []columns.Label{{Name: "pod", Value: pod}, {Name: "service_name", Value: service}}
		if i == 9 {
			ls = ls[1:]
		}
		if i == 3 {
			ls = append(ls, columns.Label{Name: "status", Value: "from-stream"})
			slices.SortFunc(ls, func(a, b columns.Label) int { return cmp.Compare(a.Name, b.Name) })
		}
		g.streams = append(g.streams, l.Stream(ls))
		o := columns.Origin{Resource: []columns.Attribute{{Name: "service.name", Value: text(service)}, {Name: "host.name", Value: text(fmt.Sprintf("h%d", i%3))}}}
		if i%4 == 1 {
			o.ScopeName, o.ScopeVersion = "scope", "1.2"
			o.Scope = []columns.Attribute{{Name: "region", Value: text("eu")}}
		}
		if i == 2 {
			o.Resource = append(o.Resource, columns.Attribute{Name: "region", Value: text("us")})
		}
		if identified && i%3 > 0 {
			o.Identity = pick(rng, "record.id", "status")
		}
		g.origins = append(g.origins, l.Origin(o))
	}
	return g
}

func pick[T any](rng *rand.Rand, from ...T) T { return from[rng.IntN(len(from))] }

func (g *rowMaker) row() columns.LogRow {
	rng := g.rng
	i := rng.IntN(10)
	r := columns.LogRow{
		// Whole seconds, so that there are equal times and times on the edges of windows.
		Time:        began.Add(time.Duration(rng.IntN(testHours*3600)) * time.Second).UnixNano(),
		Stream:      g.streams[i],
		Origin:      g.origins[i],
		Fingerprint: lake.Fingerprint(rng.IntN(5)),
		Source:      lake.ReceiptID(1 + rng.IntN(3)),
		Body:        g.body(),
	}
	if rng.IntN(3) > 0 {
		r.Time += int64(rng.IntN(1e9))
	}
	switch rng.IntN(4) {
	case 0:
		r.SeverityText, r.SeverityNumber, r.DetectedLevel = "ERROR", 17, "error"
	case 1:
		r.SeverityText, r.SeverityNumber, r.DetectedLevel = "INFO", 9, "info"
	case 2:
		r.DetectedLevel = "unknown"
	}
	if rng.IntN(2) == 0 {
		r.TraceID = testTrace(rng.IntN(40))
		r.SpanID[7] = byte(1 + rng.IntN(200))
	}
	if rng.IntN(5) == 0 {
		r.ObservedTime = r.Time + 5
	}
	if rng.IntN(7) == 0 {
		r.Flags, r.DroppedAttributes = 1, 2
	}
	r.Attributes = g.attributes()
	return r
}

func testTrace(n int) (id [16]byte) {
	id[0], id[15] = 0xab, byte(n+1)
	return id
}

func (g *rowMaker) attributes() []columns.Attribute {
	rng := g.rng
	var all []columns.Attribute
	add := func(one int, name string, v columns.Value) {
		if rng.IntN(one) == 0 {
			all = append(all, columns.Attribute{Name: name, Value: v})
		}
	}
	if g.identified {
		add(2, "record.id", pick(rng, text(fmt.Sprint(rng.IntN(60))), integer(int64(rng.IntN(60)))))
	}
	add(2, "http.method", text(pick(rng, "GET", "POST", "it's")))
	add(2, "status", integer(int64(pick(rng, 200, 404, 500))))
	add(3, "duration", columns.Value{Kind: columns.KindDouble, Num: math.Float64bits(pick(rng, 0.5, 1, 12.25, 1e9))})
	add(3, "cached", columns.Value{Kind: columns.KindBool, Num: uint64(rng.IntN(2))})
	add(4, "a.b", text("dot"))
	add(4, "a_b", text("underscore"))
	add(4, "mixed", text("5"))
	add(4, "mixed", integer(5))
	add(4, "nested", columns.Value{Kind: columns.KindMap, Str: `{"deep":{"er":"x"},"n":7}`})
	add(4, "list", columns.Value{Kind: columns.KindArray, Str: `[1,"two"]`})
	add(4, "raw", columns.Value{Kind: columns.KindBytes, Str: "\x00\xff"})
	add(60, "rare", text(pick(rng, "r1", "r2")))
	add(60, "rare.map", columns.Value{Kind: columns.KindMap, Str: `{"k":"v"}`})
	add(60, "region", text("own"))
	add(80, "trace_id", text("not-a-trace"))
	add(80, "detected_level", text("own-level"))
	return all
}

func (g *rowMaker) body() string {
	rng := g.rng
	switch rng.IntN(7) {
	case 0:
		return fmt.Sprintf(`{"status":%d,"customer_id":"c%d","size":"%dKB","msg":"payment declined","nested":{"x":%d}}`, pick(rng, 200, 404, 500), rng.IntN(6), rng.IntN(90), rng.IntN(4))
	case 1:
		return fmt.Sprintf(`level=%s user=u%d took=%dms msg="card_declined for %d"`, pick(rng, "warn", "info"), rng.IntN(5), rng.IntN(900), rng.IntN(9))
	case 2:
		return fmt.Sprintf("GET /api/%d from 10.0.%d.%d Timeout", rng.IntN(9), rng.IntN(3), rng.IntN(255))
	case 3:
		return pick(rng, "", "\n", "  ", "é's 100% ünicode \"q\"", "TIMEOUT error ERROR", "\x1b[31mred\x1b[0m alert")
	case 4:
		return fmt.Sprintf("foobar id=%08x", rng.Uint32())
	case 5:
		return `{"status":"broken` // JSON that does not parse
	}
	return "reset by peer, retry " + pick(rng, "1", "2", "foo then bar")
}

// reference is Loki's engine over rows in memory.
type reference struct{ rows []memoryRow }

func (m reference) SelectLogs(context.Context, logql.SelectLogParams) (iter.EntryIterator, error) {
	return nil, fmt.Errorf("not asked for")
}

func (m reference) SelectSamples(_ context.Context, params logql.SelectSampleParams) (iter.SampleIterator, error) {
	expr, err := params.Expr()
	if err != nil {
		return nil, err
	}
	selector, err := expr.Selector()
	if err != nil {
		return nil, err
	}
	extractors, err := expr.Extractors()
	if err != nil {
		return nil, err
	}
	series := map[string]*logproto.Series{}
	for _, r := range m.rows {
		if r.time < params.Start.UnixNano() || r.time >= params.End.UnixNano() || !matchesAll(selector.Matchers(), r.stream) {
			continue
		}
		for _, e := range extractors {
			samples, _ := e.ForStream(r.stream).ProcessString(r.time, r.line, r.metadata)
			for _, s := range samples {
				text := s.Labels.String()
				if series[text] == nil {
					series[text] = &logproto.Series{Labels: text}
				}
				series[text].Samples = append(series[text].Samples, logproto.Sample{Timestamp: r.time, Value: s.Value})
			}
		}
	}
	var its []iter.SampleIterator
	for _, s := range series {
		slices.SortFunc(s.Samples, func(a, b logproto.Sample) int {
			return cmp.Or(cmp.Compare(a.Timestamp, b.Timestamp), cmp.Compare(a.Value, b.Value))
		})
		its = append(its, iter.NewSeriesIterator(*s))
	}
	return iter.NewSortSampleIterator(its), nil
}

func matchesAll(matchers []*labels.Matcher, ls labels.Labels) bool {
	for _, m := range matchers {
		if !m.Matches(ls.Get(m.Name)) {
			return false
		}
	}
	return true
}

// samples evaluates by reference.
func (m reference) samples(ctx context.Context, q Samples) (answer, error) {
	start := q.Start
	if q.Step == 0 {
		start = q.End
	}
	params, err := logql.NewLiteralParams(q.Expression, time.Unix(0, start), time.Unix(0, q.End), q.Step, 0, logproto.FORWARD, 0, nil, nil)
	if err != nil {
		return nil, err
	}
	eng := logql.NewEngine(logql.EngineOpts{}, m, logql.NoLimits, kitlog.NewNopLogger())
	result, err := eng.Query(params).Exec(user.InjectOrgID(ctx, "o"))
	if err != nil {
		return nil, err
	}
	all, err := seriesOf(result.Data)
	return answerOf(all), err
}

// answer is series by labels and time.
type answer map[string]map[int64]float64

func answerOf(all []series) answer {
	a := answer{}
	for _, s := range all {
		for _, p := range s.points {
			if a[s.text] == nil {
				a[s.text] = map[int64]float64{}
			}
			a[s.text][p.milliseconds] = p.value
		}
	}
	return a
}

func (a answer) diff(b answer) string {
	for text, points := range a {
		for at, v := range points {
			w, ok := b[text][at]
			if !ok || math.Abs(v-w) > 1e-9*math.Max(1, math.Abs(v)) && !(math.IsNaN(v) && math.IsNaN(w)) {
				return fmt.Sprintf("%s at %d: %v and %v (there: %v)", text, at, v, w, ok)
			}
		}
	}
	for text, points := range b {
		for at := range points {
			if _, ok := a[text][at]; !ok {
				return fmt.Sprintf("%s at %d: only in the second", text, at)
			}
		}
	}
	return ""
}

func collectSamples(batches []arrow.RecordBatch) answer {
	a := answer{}
	for _, b := range batches {
		texts := b.Column(0).(*array.Dictionary)
		values := texts.Dictionary().(*array.String)
		for i := range int(b.NumRows()) {
			text := values.Value(texts.GetValueIndex(i))
			if a[text] == nil {
				a[text] = map[int64]float64{}
			}
			a[text][b.Column(1).(*array.Int64).Value(i)] = b.Column(2).(*array.Float64).Value(i)
		}
	}
	return a
}

// keep collects batches.
func keep(into *[]arrow.RecordBatch) func(arrow.RecordBatch) error {
	return func(b arrow.RecordBatch) error {
		b.Retain()
		*into = append(*into, b)
		return nil
	}
}

func (f *fixture) samples(ctx context.Context, q Samples) (answer, error) {
	var batches []arrow.RecordBatch
	err := f.begin().Samples(ctx, q, keep(&batches))
	return collectSamples(batches), err
}

func (f *fixture) begin() *Scan { return f.scanner.Begin(f.segments, 0, f.deletes...) }
