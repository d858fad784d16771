// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

var testStart = time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC)

func testMeta() Meta {
	return Meta{
		Organization: "acme", Signal: lake.SignalLogs, Window: lake.WindowOf(testStart, time.Hour), Level: 1, Lease: "lease-1",
		Sources: []lake.ReceiptID{1, 2}, Inputs: []string{"db/a.parquet"},
	}
}

// written is a segment in memory.
type written struct {
	Written
	parquet, sidecar []byte
	logs             *columns.Logs
	order            []uint32
}

func write(t testing.TB, l *columns.Logs, m Meta) written {
	t.Helper()
	order := make([]uint32, l.Len())
	for i := range order {
		order[i] = uint32(i)
	}
	l.Sort(order)
	var parquet, sidecar bytes.Buffer
	w, err := WriteLogs(t.Context(), &parquet, &sidecar, l, order, m)
	if err != nil {
		t.Fatal(err)
	}
	return written{Written: w, parquet: parquet.Bytes(), sidecar: sidecar.Bytes(), logs: l, order: order}
}

func readAll(t testing.TB, file []byte) (*Catalogue, *columns.Logs) {
	t.Helper()
	r, err := OpenLogs(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	l := columns.NewLogs()
	for {
		err := r.Next(l)
		if err == io.EOF {
			return r.Catalogue(), l
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// diffRows compares row i of a with row j of b, by content.
func diffRows(a *columns.Logs, i int, b *columns.Logs, j int) string {
	var x, y columns.LogRow
	a.Row(i, &x)
	b.Row(j, &y)
	sortAttributes(x.Attributes)
	sortAttributes(y.Attributes)
	diff := cmp.Diff(a.StreamLabels(x.Stream), b.StreamLabels(y.Stream)) + cmp.Diff(a.OriginOf(x.Origin), b.OriginOf(y.Origin), cmpopts.EquateEmpty())
	x.Stream, x.Origin, y.Stream, y.Origin = 0, 0, 0, 0
	return diff + cmp.Diff(x, y, cmpopts.EquateEmpty())
}

func TestWriteLogs(t *testing.T) {
	t.Parallel()

	t.Run("gives rows back as they went in", func(t *testing.T) {
		t.Parallel()
		for seed, n := range []int{1, 2, 9, 500, rowGroupRows, 2*rowGroupRows + 77} {
			l := randomLogs(rand.New(rand.NewPCG(uint64(seed), 1)), n)
			w := write(t, l, testMeta())
			c, got := readAll(t, w.parquet)
			if got.Len() != n || c.Rows != int64(n) || w.Rows != int64(n) {
				t.Fatalf("%d rows: read %d, catalogue %d, written %d", n, got.Len(), c.Rows, w.Rows)
			}
			var sum uint64
			for i, row := range w.order {
				hash := got.RowHash(i)
				if sum += hash; hash == l.RowHash(int(row)) && i%16 > 0 {
					continue
				}
				if diff := diffRows(l, int(row), got, i); diff != "" {
					t.Fatalf("row %d of %d (-want +got):\n%s", i, n, diff)
				}
			}
			if sum != w.RowHash || sum != c.RowHash {
				t.Errorf("row hash: read %x, catalogue %x, written %x", sum, c.RowHash, w.RowHash)
			}
		}
	})

	t.Run("says what it wrote", func(t *testing.T) {
		t.Parallel()
		w := write(t, randomLogs(rand.New(rand.NewPCG(3, 1)), 40_000), testMeta())
		if w.Bytes != int64(len(w.parquet)) || w.SidecarBytes != int64(len(w.sidecar)) || w.FormatVersion != FormatVersion {
			t.Errorf("%+v, but the files have %d and %d bytes", w.Written, len(w.parquet), len(w.sidecar))
		}
		c, err := ReadCatalogue(bytes.NewReader(w.parquet), w.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		s, err := OpenSidecar(w.sidecar)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c, s.Catalogue(), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("the catalogues of file and sidecar differ:\n%s", diff)
		}
		if diff := cmp.Diff(testMeta(), c.Meta); diff != "" {
			t.Error(diff)
		}
		checkCatalogue(t, w, c)
	})

	t.Run("keeps names that differ in case or in dots, and types, apart", func(t *testing.T) {
		t.Parallel()
		l := columns.NewLogs()
		stream, origin := l.Stream(nil), l.Origin(columns.Origin{})
		for i := range 100 {
			attributes := []columns.Attribute{
				{Name: "userId", Value: columns.Value{Str: fmt.Sprint("u", i)}},
				{Name: "userid", Value: columns.Value{Str: "lower"}},
				{Name: "a.b", Value: columns.Value{Kind: columns.KindInt, Num: uint64(i)}},
				{Name: "a_b", Value: columns.Value{Kind: columns.KindDouble, Num: math.Float64bits(0.5)}},
				{Name: "", Value: columns.Value{Str: "no name"}},
			}
			if i%2 == 0 {
				attributes = append(attributes, columns.Attribute{Name: "mixed", Value: columns.Value{Kind: columns.KindInt, Num: 1}})
			} else {
				attributes = append(attributes, columns.Attribute{Name: "mixed", Value: columns.Value{Str: "one"}})
			}
			l.Append(&columns.LogRow{Time: testStart.UnixNano() + int64(i), Stream: stream, Origin: origin, Attributes: attributes})
		}
		w := write(t, l, testMeta())
		c, got := readAll(t, w.parquet)
		for i, row := range w.order {
			if diff := diffRows(l, int(row), got, i); diff != "" {
				t.Fatalf("row %d:\n%s", i, diff)
			}
		}
		var names []string
		for _, a := range c.Attributes {
			names = append(names, a.Column)
		}
		folded := map[string]bool{}
		for _, name := range names {
			if folded[strings.ToLower(name)] {
				t.Errorf("column %s twice when case is ignored: %v", name, names)
			}
			folded[strings.ToLower(name)] = true
		}
		if len(names) != 7 {
			t.Errorf("got columns %v", names)
		}
	})

	t.Run("cuts row groups at the hour", func(t *testing.T) {
		t.Parallel()
		l := columns.NewLogs()
		stream, origin := l.Stream(nil), l.Origin(columns.Origin{})
		for i := range 100 {
			l.Append(&columns.LogRow{Time: testStart.Add(time.Duration(i) * time.Minute).UnixNano(), Stream: stream, Origin: origin})
		}
		m := testMeta()
		m.Window.Length = 2 * time.Hour
		c, _ := readAll(t, write(t, l, m).parquet)
		want := []RowGroup{
			{FirstRow: 0, Rows: 60, First: testStart.UnixNano(), Last: testStart.Add(59 * time.Minute).UnixNano()},
			{FirstRow: 60, Rows: 40, First: testStart.Add(time.Hour).UnixNano(), Last: testStart.Add(99 * time.Minute).UnixNano()},
		}
		if diff := cmp.Diff(want, c.RowGroups); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("refuses what would make an unreadable file", func(t *testing.T) {
		t.Parallel()
		bad := map[string]columns.LogRow{
			"body":      {Body: "a\xff"},
			"severity":  {SeverityText: "\xc3"},
			"attribute": {Attributes: []columns.Attribute{{Name: "x", Value: columns.Value{Str: "\xff"}}}},
		}
		for name, row := range bad {
			l := columns.NewLogs()
			row.Time, row.Stream, row.Origin = testStart.UnixNano(), l.Stream(nil), l.Origin(columns.Origin{})
			l.Append(&row)
			if _, err := WriteLogs(t.Context(), io.Discard, io.Discard, l, []uint32{0}, testMeta()); fault.KindOf(err) != fault.Invalid {
				t.Errorf("%s: got %v", name, err)
			}
		}
		l := columns.NewLogs()
		l.Append(&columns.LogRow{Stream: l.Stream(nil), Origin: l.Origin(columns.Origin{})})
		if _, err := WriteLogs(t.Context(), io.Discard, io.Discard, l, []uint32{0}, testMeta()); err == nil {
			t.Error("a row outside the window was written")
		}
	})

	t.Run("writes tens of thousands of streams and origins, and attributes by the thousand", func(t *testing.T) {
		t.Parallel()
		l := columns.NewLogs()
		for i := range 50_000 {
			id := fmt.Sprint("id-", i)
			l.Append(&columns.LogRow{
				Time:   testStart.UnixNano() + int64(i),
				Stream: l.Stream([]columns.Label{{Name: "pod", Value: id}}),
				Origin: l.Origin(columns.Origin{Resource: []columns.Attribute{{Name: "pod", Value: columns.Value{Str: id}}}}),
				Attributes: []columns.Attribute{
					{Name: fmt.Sprint("attribute-", i%3000), Value: columns.Value{Str: id}},
					{Name: "dense", Value: columns.Value{Str: id}},
				},
			})
		}
		w := write(t, l, testMeta())
		c, got := readAll(t, w.parquet)
		if len(c.Streams) != 50_000 || len(c.Origins) != 50_000 || len(c.Attributes) != 3001 {
			t.Errorf("%d streams, %d origins, %d attributes", len(c.Streams), len(c.Origins), len(c.Attributes))
		}
		for i, row := range w.order {
			if got.RowHash(i) != l.RowHash(int(row)) {
				t.Fatalf("row %d:\n%s", i, diffRows(l, int(row), got, i))
			}
		}
		for _, a := range c.Attributes {
			if a.Name == "dense" && (a.Column == "" || math.Abs(float64(a.Cardinality)-50_000) > 10_000) {
				t.Errorf("got %+v", a)
			}
		}
	})
}

func checkCatalogue(t *testing.T, w written, c *Catalogue) {
	t.Helper()
	var first, last, bodies int64 = math.MaxInt64, math.MinInt64, 0
	streams := make([]StreamEntry, len(c.Streams))
	for i := range streams {
		streams[i] = StreamEntry{Labels: c.Streams[i].Labels, First: math.MaxInt64, Last: math.MinInt64}
	}
	groups := slices.Clone(c.RowGroups)
	_, read := readAll(t, w.parquet)
	var row columns.LogRow
	for i := range read.Len() {
		read.Row(i, &row)
		first, last = min(first, row.Time), max(last, row.Time)
		bodies += int64(len(row.Body))
		at := slices.IndexFunc(streams, func(s StreamEntry) bool { return slices.Equal(s.Labels, read.StreamLabels(row.Stream)) })
		s := &streams[at]
		s.Rows++
		s.Bytes += int64(len(row.Body))
		s.First, s.Last = min(s.First, row.Time), max(s.Last, row.Time)
		g := groups[slices.IndexFunc(groups, func(g RowGroup) bool { return int64(i) < g.FirstRow+g.Rows })]
		if row.Time < g.First || row.Time > g.Last {
			t.Fatalf("row %d is outside its row group's times", i)
		}
	}
	if diff := cmp.Diff(streams, c.Streams); diff != "" {
		t.Error(diff)
	}
	if w.First.UnixNano() != first || w.Last.UnixNano() != last || c.BodyBytes != bodies {
		t.Errorf("first %v, last %v, body bytes %d", w.First, w.Last, c.BodyBytes)
	}
}

// randomLogs makes rows with everything a row can have.
func randomLogs(rng *rand.Rand, n int) *columns.Logs {
	l := columns.NewLogs()
	var streams []columns.StreamID
	var origins []columns.OriginID
	for i := range 7 {
		streams = append(streams, l.Stream([]columns.Label{{Name: "pod", Value: fmt.Sprint(i)}, {Name: columns.ServiceLabel, Value: fmt.Sprint("s", i/2)}}))
		origins = append(origins, l.Origin(columns.Origin{
			ScopeName: fmt.Sprint("scope", i), ScopeVersion: "1", ScopeSchemaURL: "u", ResourceSchemaURL: "v",
			Scope:    []columns.Attribute{{Name: "x", Value: columns.Value{Kind: columns.KindBool, Num: 1}}},
			Resource: []columns.Attribute{{Name: "service.name", Value: columns.Value{Str: fmt.Sprint("s", i/2)}}},
		}))
	}
	var row columns.LogRow
	for range n {
		row = columns.LogRow{
			Time:        testStart.UnixNano() + rng.Int64N(int64(time.Hour)),
			TimeSource:  columns.TimeSource(rng.IntN(3)),
			Stream:      streams[rng.IntN(len(streams))],
			Origin:      origins[rng.IntN(len(origins))],
			Fingerprint: lake.Fingerprint(rng.Uint64N(8)) * 0x9e3779b97f4a7c15,
			Source:      lake.ReceiptID(1 + rng.IntN(2)),
			Body:        randomBody(rng),
			Attributes:  row.Attributes[:0],
		}
		if rng.IntN(2) == 0 {
			row.SeverityNumber, row.SeverityText, row.DetectedLevel = 17, "ERROR", "error"
			row.Flags, row.DroppedAttributes, row.ObservedTime = math.MaxUint32, math.MaxUint32, row.Time+5
			row.EventName = fmt.Sprint("event ", rng.IntN(5000))
			row.TraceID, row.SpanID = [16]byte{byte(rng.Uint32()), 1, 15: byte(rng.Uint32())}, [8]byte{1, byte(rng.Uint32())}
		}
		for k := range rng.IntN(12) {
			row.Attributes = append(row.Attributes, columns.Attribute{Name: attributeNames[k], Value: randomValue(rng, k)})
		}
		if rng.IntN(50) == 0 {
			row.BodyKind, row.Body = columns.KindMap, `{"a":1}`
			row.Attributes = append(row.Attributes, columns.Attribute{Name: fmt.Sprint("rare.", rng.IntN(20), "\"\\\n"), Value: randomValue(rng, rng.IntN(9))})
		}
		l.Append(&row)
	}
	return l
}

var attributeNames = []string{"http.status", "userId", "userid", "a.b", "a_b", "ünïcode", "", "bytes", "list", "map", "d", "flag"}

func randomBody(rng *rand.Rand) string {
	switch rng.IntN(5) {
	case 0:
		return ""
	case 1:
		return "constant line"
	case 2:
		return "nul \x00 and ünïcödé 🦊 " + fmt.Sprint(rng.IntN(9))
	}
	return fmt.Sprintf("order %08x failed: card_declined after %dms", rng.Uint32(), rng.IntN(10_000))
}

func randomValue(rng *rand.Rand, k int) columns.Value {
	number := func(kind columns.ValueKind, n uint64) columns.Value { return columns.Value{Kind: kind, Num: n} }
	doubles := []float64{0, math.Copysign(0, -1), 1.5, math.Inf(1), math.Inf(-1), math.NaN(), 1e300, 5e-324}
	switch rng.IntN(9) {
	case 0:
		return number(columns.KindInt, rng.Uint64()>>rng.IntN(64))
	case 1:
		return number(columns.KindDouble, math.Float64bits(doubles[rng.IntN(len(doubles))]))
	case 2:
		return number(columns.KindDouble, 0x7ff0000000000002) // StaleNaN
	case 3:
		return number(columns.KindBool, rng.Uint64()&1)
	case 4:
		return columns.Value{Kind: columns.KindBytes, Str: string([]byte{0xff, byte(rng.Uint32()), 0})}
	case 5:
		return columns.Value{Kind: columns.KindArray, Str: fmt.Sprintf(`["a",%d]`, rng.IntN(9))}
	case 6:
		return columns.Value{Kind: columns.KindMap, Str: `{"x":"y"}`}
	}
	return columns.Value{Str: fmt.Sprint("value \" ", rng.IntN(1+k*5000))}
}
