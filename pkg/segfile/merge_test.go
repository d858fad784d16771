// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// merged is what a merge made, in memory.
type merged struct {
	MergeResult
	parquet, sidecars [][]byte
}

func (m *merged) create(n int) (parquet, sidecar io.Writer, done func() error, err error) {
	p, s := &bytes.Buffer{}, &bytes.Buffer{}
	return p, s, func() error {
		if n != len(m.parquet) {
			return fmt.Errorf("output %d after %d", n, len(m.parquet))
		}
		m.parquet, m.sidecars = append(m.parquet, p.Bytes()), append(m.sidecars, s.Bytes())
		return nil
	}, nil
}

func merge(t testing.TB, inputs []MergeInput, o MergeOptions) merged {
	t.Helper()
	var m merged
	if o.Meta.Organization == "" {
		o.Meta = testMeta()
	}
	o.Create = m.create
	var err error
	if m.MergeResult, err = Merge(t.Context(), inputs, o); err != nil {
		t.Fatal(err)
	}
	for i := range m.parquet {
		checkSound(t, m.parquet[i], m.sidecars[i])
		if out := m.Outputs[i]; out.Bytes != int64(len(m.parquet[i])) || out.SidecarBytes != int64(len(m.sidecars[i])) {
			t.Errorf("output %d has %d and %d bytes, not %d and %d", i, len(m.parquet[i]), len(m.sidecars[i]), out.Bytes, out.SidecarBytes)
		}
	}
	return m
}

func checkSound(t testing.TB, parquet, sidecar []byte) Report {
	t.Helper()
	r, err := Verify(t.Context(), bytes.NewReader(parquet), int64(len(parquet)), sidecar)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Problems) > 0 {
		t.Fatalf("not sound: %q", r.Problems)
	}
	return r
}

func input(name string, file []byte) MergeInput {
	return MergeInput{Name: name, Parquet: bytes.NewReader(file), Size: int64(len(file))}
}

// part writes some rows of l, which are in the order of appending, as a segment of level 0.
func part(t testing.TB, l *columns.Logs, rows []uint32, m Meta) []byte {
	t.Helper()
	l.Sort(rows)
	var parquet bytes.Buffer
	m.Level, m.Sources = 0, nil
	if _, err := WriteLogs(t.Context(), &parquet, io.Discard, l, rows, m); err != nil {
		t.Fatal(err)
	}
	return parquet.Bytes()
}

// parts deals the rows of l out to n segments.
func parts(t testing.TB, rng *rand.Rand, l *columns.Logs, n int, m Meta) []MergeInput {
	t.Helper()
	dealt := make([][]uint32, n)
	for i := range l.Len() {
		k := rng.IntN(n)
		dealt[k] = append(dealt[k], uint32(i))
	}
	var inputs []MergeInput
	for i, rows := range dealt {
		if len(rows) > 0 {
			inputs = append(inputs, input(fmt.Sprint("part-", i), part(t, l, rows, m)))
		}
	}
	return inputs
}

// readMerged reads the rows of all outputs, one after the other.
func readMerged(t testing.TB, m merged) *columns.Logs {
	t.Helper()
	l := columns.NewLogs()
	for _, file := range m.parquet {
		r, err := OpenLogs(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			err = r.Next(l)
		}
		if err != io.EOF {
			t.Fatal(err)
		}
	}
	return l
}

// sameRows compares rows of l, in the order of a segment, with those that were read.
func sameRows(t testing.TB, l *columns.Logs, rows []uint32, got *columns.Logs) {
	t.Helper()
	if got.Len() != len(rows) {
		t.Fatalf("%d rows, want %d", got.Len(), len(rows))
	}
	for i, row := range rows {
		if got.RowHash(i) != l.RowHash(int(row)) {
			t.Fatalf("row %d of %d (-want +got):\n%s", i, len(rows), diffRows(l, int(row), got, i))
		}
		if i%64 == 0 {
			if diff := diffRows(l, int(row), got, i); diff != "" {
				t.Fatalf("row %d of %d (-want +got):\n%s", i, len(rows), diff)
			}
		}
	}
}

func sortedRows(l *columns.Logs) []uint32 {
	rows := make([]uint32, l.Len())
	for i := range rows {
		rows[i] = uint32(i)
	}
	l.Sort(rows)
	return rows
}

// TestMergeOfAnyTree deals random rows out to segments and merges those in random trees: what comes out is what one writer makes of all rows.
func TestMergeOfAnyTree(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 11))
			l := randomLogs(rng, 1+rng.IntN(5000))
			want := write(t, l, testMeta())
			left := parts(t, rng, l, 1+rng.IntN(9), testMeta())
			var last merged
			for round := 0; round == 0 || len(left) > 1; round++ {
				rng.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
				n := 1 + rng.IntN(len(left))
				last = merge(t, left[:n], MergeOptions{})
				left = append(left[n:], input("merged", last.parquet[0]))
			}
			sameRows(t, l, want.order, readMerged(t, last))
			if diff := cmp.Diff(wantCatalogue(t, want), last.Outputs[0].Catalogue, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("catalogue (-want +got):\n%s", diff)
			}
			if last.HashOut != want.RowHash {
				t.Errorf("hash %x, want %x", last.HashOut, want.RowHash)
			}
		})
	}
}

// wantCatalogue is that of one writer, but for the row groups, which need not be cut alike.
func wantCatalogue(t testing.TB, w written) *Catalogue {
	t.Helper()
	c, err := ReadCatalogue(bytes.NewReader(w.parquet), w.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMergeKeepsTheOrderOfInputs(t *testing.T) {
	t.Parallel()
	l := columns.NewLogs()
	stream, origin := l.Stream([]columns.Label{{Name: columns.ServiceLabel, Value: "s"}}), l.Origin(columns.Origin{})
	for i := range 3000 {
		l.Append(&columns.LogRow{Time: testStart.UnixNano() + int64(i%7), Stream: stream, Origin: origin, Body: fmt.Sprint("line ", i), Source: 1})
	}
	var inputs []MergeInput
	for from := 0; from < 3000; from += 500 {
		rows := make([]uint32, 500)
		for i := range rows {
			rows[i] = uint32(from + i)
		}
		inputs = append(inputs, input("part", part(t, l, rows, testMeta())))
	}
	sameRows(t, l, sortedRows(l), readMerged(t, merge(t, inputs, MergeOptions{})))
}

func TestMergeOfHoursAndServices(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 12))
	m := testMeta()
	m.Window = lake.WindowOf(testStart, 24*time.Hour)
	l := columns.NewLogs()
	var row columns.LogRow
	for i := range 20_000 {
		row = columns.LogRow{
			Time:        m.Window.Start.UnixNano() + rng.Int64N(int64(m.Window.Length)),
			Stream:      l.Stream([]columns.Label{{Name: columns.ServiceLabel, Value: fmt.Sprint("s", rng.IntN(9))}}),
			Origin:      l.Origin(columns.Origin{ScopeName: fmt.Sprint(rng.IntN(3))}),
			Fingerprint: lake.Fingerprint(rng.Uint64()), Body: randomBody(rng), Source: lake.ReceiptID(i % 5),
		}
		l.Append(&row)
	}
	got := merge(t, parts(t, rng, l, 5, m), MergeOptions{Meta: m})
	sameRows(t, l, sortedRows(l), readMerged(t, got))
}

func TestMergeCutsOutputsAtRowGroups(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(4, 12))
	l := randomLogs(rng, 4*rowGroupRows)
	got := merge(t, parts(t, rng, l, 4, testMeta()), MergeOptions{TargetBytes: 300_000})
	if len(got.Outputs) < 3 {
		t.Errorf("%d outputs", len(got.Outputs))
	}
	for i, out := range got.Outputs {
		if out.Bytes < 300_000 && i < len(got.Outputs)-1 || out.Rows%rowGroupRows != 0 && i < len(got.Outputs)-1 {
			t.Errorf("output %d has %d bytes and %d rows", i, out.Bytes, out.Rows)
		}
	}
	sameRows(t, l, sortedRows(l), readMerged(t, got))
}

func TestMergeDecidesAnewWhichAttributesHaveColumns(t *testing.T) {
	t.Parallel()
	attribute := func(name, value string) columns.Attribute {
		return columns.Attribute{Name: name, Value: columns.Value{Str: value}}
	}
	l := columns.NewLogs()
	stream, origin := l.Stream(nil), l.Origin(columns.Origin{})
	var few, many []uint32
	for i := range 4000 {
		row := columns.LogRow{Time: testStart.UnixNano() + int64(i), Stream: stream, Origin: origin}
		if i < 100 { // all of the small segment
			few = append(few, uint32(i))
			row.Attributes = append(row.Attributes, attribute("demoted", fmt.Sprint("v", i)), attribute("empty", ""),
				columns.Attribute{Name: "both", Value: columns.Value{Kind: columns.KindInt, Num: uint64(i)}})
		} else {
			many = append(many, uint32(i))
			row.Attributes = append(row.Attributes, attribute("both", "text"))
			if i%25 == 0 { // four in a hundred: too few here, and enough with those below
				row.Attributes = append(row.Attributes, attribute("promoted", fmt.Sprint(i)), attribute("rare "+fmt.Sprint(i%1000), ""))
			}
		}
		if i < 100 {
			row.Attributes = append(row.Attributes, attribute("promoted", ""))
		}
		l.Append(&row)
	}
	got := merge(t, []MergeInput{input("few", part(t, l, few, testMeta())), input("many", part(t, l, many, testMeta()))}, MergeOptions{})
	sameRows(t, l, sortedRows(l), readMerged(t, got))
	dense := map[string]bool{}
	for _, a := range got.Outputs[0].Catalogue.Attributes {
		dense[a.Name+kindLetters[a.Kind:a.Kind+1]] = a.Column != ""
	}
	for name, want := range map[string]bool{"demoteds": false, "promoteds": true, "boths": true, "bothi": false, "emptys": false} {
		if dense[name] != want {
			t.Errorf("%s has a column: %v", name, dense[name])
		}
	}
}

func TestMergeOfThousandsOfAttributes(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(5, 12))
	l := columns.NewLogs()
	stream, origin := l.Stream(nil), l.Origin(columns.Origin{})
	for i := range 3000 {
		row := columns.LogRow{Time: testStart.UnixNano() + int64(i), Stream: stream, Origin: origin}
		for range 10 {
			row.Attributes = append(row.Attributes, columns.Attribute{Name: fmt.Sprint("attribute.", rng.IntN(3000)), Value: randomValue(rng, 2)})
		}
		l.Append(&row)
	}
	got := merge(t, parts(t, rng, l, 6, testMeta()), MergeOptions{})
	sameRows(t, l, sortedRows(l), readMerged(t, got))
	if n := len(got.Outputs[0].Catalogue.Attributes); n < 3000 {
		t.Errorf("%d attributes", n)
	}
}

func TestMergeOfHugeBodies(t *testing.T) {
	t.Parallel()
	l := columns.NewLogs()
	stream, origin := l.Stream(nil), l.Origin(columns.Origin{})
	for i := range 12 {
		l.Append(&columns.LogRow{Time: testStart.UnixNano() + int64(i), Stream: stream, Origin: origin, Body: strings.Repeat(fmt.Sprint("huge ", i, " "), 1+i*60_000)})
	}
	got := merge(t, parts(t, rand.New(rand.NewPCG(6, 12)), l, 3, testMeta()), MergeOptions{})
	sameRows(t, l, sortedRows(l), readMerged(t, got))
}
