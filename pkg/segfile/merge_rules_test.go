// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// TestMergeAppliesRules sets merges with random masks, deletes, expiries, field rules and identities against one that has all rows in memory.
func TestMergeAppliesRules(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 21))
			l := identified(rng, randomLogs(rng, 1+rng.IntN(3000)))
			inputs := parts(t, rng, l, 1+rng.IntN(5), testMeta())
			for i := range inputs {
				randomRules(rng, &inputs[i])
			}
			var want merged
			var err error
			want.MergeResult, err = mergeInMemory(t.Context(), inputs, MergeOptions{Meta: testMeta(), Create: want.create})
			if err != nil {
				t.Fatal(err)
			}
			got := merge(t, inputs, MergeOptions{})
			figures := cmpopts.IgnoreFields(MergeResult{}, "Outputs")
			if diff := cmp.Diff(want.MergeResult, got.MergeResult, figures, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("figures (-want +got):\n%s", diff)
			}
			rows := readMerged(t, want)
			all := make([]uint32, rows.Len())
			for i := range all {
				all[i] = uint32(i)
			}
			sameRows(t, rows, all, readMerged(t, got))
			for i := range min(len(want.Outputs), len(got.Outputs)) {
				ignored := cmpopts.IgnoreFields(Catalogue{}, "RowGroups")
				if diff := cmp.Diff(withoutColumns(want.Outputs[i].Catalogue), withoutColumns(got.Outputs[i].Catalogue), ignored, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("catalogue (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// withoutColumns is a catalogue without what depends on rows that left: columns are chosen by what the inputs have.
func withoutColumns(c *Catalogue) *Catalogue {
	own := *c
	own.Attributes = slices.Clone(c.Attributes)
	for i := range own.Attributes {
		own.Attributes[i].Column = ""
	}
	return &own
}

// identified gives half of the origins an identity with few values, so that there are doubles.
func identified(rng *rand.Rand, from *columns.Logs) *columns.Logs {
	l := columns.NewLogs()
	var row columns.LogRow
	for i := range from.Len() {
		from.Row(i, &row)
		o := from.OriginOf(row.Origin)
		if row.Origin%2 == 0 {
			o.Identity = "event.id"
		}
		row.Stream, row.Origin = l.Stream(from.StreamLabels(row.Stream)), l.Origin(o)
		switch rng.IntN(6) {
		case 0:
			row.Attributes = append(row.Attributes, columns.Attribute{Name: "event.id", Value: columns.Value{Kind: columns.KindInt, Num: rng.Uint64N(500)}})
		case 1, 2, 3:
			row.Attributes = append(row.Attributes, columns.Attribute{Name: "event.id", Value: columns.Value{Str: fmt.Sprint(rng.IntN(500))}})
		case 4:
			row.Attributes = append(row.Attributes, columns.Attribute{Name: "event.id"})
		}
		l.Append(&row)
	}
	return l
}

func randomRules(rng *rand.Rand, in *MergeInput) {
	if rng.IntN(3) == 0 {
		in.MaskedSources = []lake.ReceiptID{2}
	}
	start := testStart.UnixNano()
	for n := range rng.IntN(4) {
		rule := RowRule{Reason: ReasonDeleted, Delete: lake.DeleteID(7 + n), Start: start + rng.Int64N(2e12), End: start + rng.Int64N(4e12)}
		if rng.IntN(2) == 0 {
			rule.Reason, rule.Delete = ReasonExpired, 0
		}
		if rng.IntN(2) == 0 {
			pod := fmt.Sprint(rng.IntN(7))
			rule.Stream = func(labels []columns.Label) bool { return labelOf(labels, "pod") == pod }
		}
		if rng.IntN(2) == 0 {
			rule.Row = func(labels []columns.Label, o columns.Origin, r *columns.LogRow) bool {
				severe := r.SeverityText == "ERROR" && len(r.TraceID) == 16 && o.ScopeVersion == "1" && len(labels) == 2
				return severe || strings.Contains(r.Body, "declined") || slices.ContainsFunc(r.Attributes, func(a columns.Attribute) bool { return a.Name == "a.b" })
			}
		}
		in.Drop = append(in.Drop, rule)
	}
	names := append([]string{"resource.service.name", "scope.x", fieldBody, "event.id", "not there"}, attributeNames...)
	for range rng.IntN(4) {
		rule := FieldRule{Name: names[rng.IntN(len(names))], Action: FieldAction(rng.IntN(3)), Key: []byte("key")}
		in.Fields = append(in.Fields, rule)
	}
}

func TestMergeFieldRules(t *testing.T) {
	t.Parallel()
	l := columns.NewLogs()
	stream := l.Stream([]columns.Label{{Name: columns.ServiceLabel, Value: "s"}})
	origin := l.Origin(columns.Origin{Resource: []columns.Attribute{{Name: "host", Value: columns.Value{Str: "h"}}}})
	l.Append(&columns.LogRow{
		Time: testStart.UnixNano(), Stream: stream, Origin: origin, Body: "secret", BodyKind: columns.KindMap, Attributes: []columns.Attribute{
			{Name: "email", Value: columns.Value{Str: "a@b"}},
			{Name: "email", Value: columns.Value{Kind: columns.KindInt, Num: 5}},
			{Name: "password", Value: columns.Value{Str: "p"}},
			{Name: "card", Value: columns.Value{Kind: columns.KindInt, Num: 4}},
			{Name: "kept", Value: columns.Value{Str: "k"}},
		},
	})
	in := input("one", write(t, l, testMeta()).parquet)
	in.Fields = []FieldRule{
		{Name: "email", Action: FieldHash, Key: []byte("key")},
		{Name: "password", Action: FieldDrop},
		{Name: "card", Action: FieldMask},
		{Name: "body", Action: FieldMask},
		{Name: "resource.host", Action: FieldDrop},
	}
	got := merge(t, []MergeInput{in}, MergeOptions{})
	if got.Changed != 1 || got.RowsOut != 1 {
		t.Errorf("%+v", got.MergeResult)
	}
	rows := readMerged(t, got)
	var row columns.LogRow
	rows.Row(0, &row)
	want := []columns.Attribute{
		{Name: "card", Value: columns.Value{Str: "***"}},
		{Name: "email", Value: columns.Value{Str: "85a0be1cfa9b2af7882b9c6c18033471"}},
		{Name: "kept", Value: columns.Value{Str: "k"}},
	}
	if row.Body != "***" || row.BodyKind != columns.KindString || len(rows.OriginOf(row.Origin).Resource) != 0 {
		t.Errorf("%+v of %+v", row, rows.OriginOf(row.Origin))
	}
	if diff := cmp.Diff(want, row.Attributes); diff != "" {
		t.Error(diff)
	}
}

// TestMergeDropsDoublesInAnyOrder merges the same segments in many trees: the same rows stay.
func TestMergeDropsDoublesInAnyOrder(t *testing.T) {
	t.Parallel()
	var want map[uint64]int
	for seed := range uint64(6) {
		l := identified(rand.New(rand.NewPCG(1, 22)), randomLogs(rand.New(rand.NewPCG(2, 22)), 3000))
		left := parts(t, rand.New(rand.NewPCG(3, 22)), l, 7, testMeta())
		rng := rand.New(rand.NewPCG(seed, 23))
		var last merged
		dropped := int64(0)
		for round := 0; round == 0 || len(left) > 1; round++ {
			rng.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
			n := 1 + rng.IntN(len(left))
			last = merge(t, left[:n], MergeOptions{})
			dropped += last.Deduplicated
			left = append(left[n:], input("merged", last.parquet[0]))
		}
		rows := readMerged(t, last)
		got := map[uint64]int{}
		for i := range rows.Len() {
			got[rows.RowHash(i)]++
		}
		if dropped < 100 || !last.Outputs[0].Identified {
			t.Errorf("%d doubles, identified: %v", dropped, last.Outputs[0].Identified)
		}
		if want == nil {
			want = got
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("seed %d: other rows stay:\n%s", seed, diff)
		}
	}
}

func TestMergeWithoutRowsHasNoOutput(t *testing.T) {
	t.Parallel()
	l := randomLogs(rand.New(rand.NewPCG(1, 24)), 500)
	in := input("one", write(t, l, testMeta()).parquet)
	in.Drop = []RowRule{{Reason: ReasonDeleted, Delete: 3, Start: math.MinInt64, End: math.MaxInt64}}
	got := merge(t, []MergeInput{in}, MergeOptions{})
	if len(got.Outputs) != 0 || got.Deleted != 500 || got.RowsOut != 0 {
		t.Errorf("%+v", got.MergeResult)
	}
	want := []DeletedRows{{Delete: 3, Source: 1}, {Delete: 3, Source: 2}}
	if diff := cmp.Diff(want, got.DeletedBy, cmpopts.IgnoreFields(DeletedRows{}, "Rows")); diff != "" || got.DeletedBy[0].Rows+got.DeletedBy[1].Rows != 500 {
		t.Errorf("%+v", got.DeletedBy)
	}
}

// TestMergeReadsTheFirstVersion merges the segments of all format versions.
func TestMergeReadsTheFirstVersion(t *testing.T) {
	t.Parallel()
	var inputs []MergeInput
	var hash uint64
	for version := 1; version <= FormatVersion; version++ {
		file, err := os.ReadFile(filepath.Join("testdata", fmt.Sprintf("v%d.parquet", version)))
		if err != nil {
			t.Fatal(err)
		}
		inputs = append(inputs, input(fmt.Sprint("v", version), file))
		hash += fixtureRowHashes[version]
	}
	got := merge(t, inputs, MergeOptions{})
	if got.HashIn != hash || got.RowsIn != 200 || got.Outputs[0].FormatVersion != FormatVersion {
		t.Errorf("%+v", got.MergeResult)
	}
}

// TestMergeHoldsRowGroupsNotFiles runs alone, as what it counts is of the whole process.
func TestMergeHoldsRowGroupsNotFiles(t *testing.T) { //nolint:paralleltest // see above
	l := randomLogs(rand.New(rand.NewPCG(1, 25)), 20*rowGroupRows/8)
	file := write(t, l, testMeta()).parquet
	_, err := Merge(t.Context(), []MergeInput{input("one", file)}, MergeOptions{Meta: testMeta(), Memory: 1 << 20, Create: (&merged{}).create})
	if fault.KindOf(err) != fault.Exhausted {
		t.Errorf("a merge that needs more memory than it may: %v", err)
	}
	// What the inputs' row groups take depends on the number of inputs, and not on how many row groups they have.
	short, long := hours(t, 1), hours(t, 12)
	a, b := sourceMemory(t, short), sourceMemory(t, long)
	if max(a, b)-min(a, b) > a/100 {
		t.Errorf("a row group takes %d bytes in a file of one, %d in a file of many", a, b)
	}
	once, often := allocated(t, short), allocated(t, long)
	if often > 4*once {
		t.Errorf("a merge of 12 row groups allocates %d bytes, one of 1 row group %d", often, once)
	}
}

// hours writes n row groups of a few thousand rows, one an hour.
func hours(t *testing.T, n int) []byte {
	t.Helper()
	l := columns.NewLogs()
	stream, origin := l.Stream(nil), l.Origin(columns.Origin{})
	for hour := range n {
		for i := range 4000 {
			l.Append(&columns.LogRow{
				Time: testStart.UnixNano() + int64(hour)*3600e9 + int64(i), Stream: stream, Origin: origin, Body: fmt.Sprint("a line of which there are many: ", i),
			})
		}
	}
	return write(t, l, Meta{}).parquet
}

func sourceMemory(t *testing.T, file []byte) int64 {
	t.Helper()
	in := input("one", file)
	s, err := openSource(&merger{}, &in, 0)
	if err != nil {
		t.Fatal(err)
	}
	return s.memory()
}

// allocated is what a merge allocates, in bytes, but for the output it writes.
func allocated(t *testing.T, file []byte) int64 {
	t.Helper()
	discard := func(int) (io.Writer, io.Writer, func() error, error) {
		return io.Discard, io.Discard, func() error { return nil }, nil
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := Merge(t.Context(), []MergeInput{input("one", file)}, MergeOptions{Create: discard}); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

func TestMergeBoundsIdentities(t *testing.T) {
	t.Parallel()
	l := columns.NewLogs()
	stream, origin := l.Stream(nil), l.Origin(columns.Origin{Identity: "id"})
	for i := range 30_000 {
		l.Append(&columns.LogRow{
			Time: testStart.UnixNano() + int64(i), Stream: stream, Origin: origin,
			Attributes: []columns.Attribute{{Name: "id", Value: columns.Value{Kind: columns.KindInt, Num: uint64(i)}}},
		})
	}
	file := write(t, l, testMeta()).parquet
	o := MergeOptions{Meta: testMeta(), Memory: mergeOverhead + sourceMemory(t, file) + 100*identityBytes, Create: (&merged{}).create}
	_, err := Merge(t.Context(), []MergeInput{input("one", file)}, o)
	if fault.KindOf(err) != fault.Exhausted || !strings.Contains(err.Error(), "allow more memory") {
		t.Errorf("got %v", err)
	}
}

func TestMergeStopsWhenAsked(t *testing.T) {
	t.Parallel()
	file := write(t, randomLogs(rand.New(rand.NewPCG(1, 26)), 3*rowGroupRows), testMeta()).parquet
	ctx, cancel := context.WithCancel(t.Context())
	inputs := []MergeInput{input("one", file)}
	inputs[0].Drop = []RowRule{{End: math.MaxInt64, Row: func([]columns.Label, columns.Origin, *columns.LogRow) bool { cancel(); return false }}}
	if _, err := Merge(ctx, inputs, MergeOptions{Meta: testMeta(), Create: (&merged{}).create}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := Verify(ctx, bytes.NewReader(file), int64(len(file)), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestMergePassesErrorsOn(t *testing.T) {
	t.Parallel()
	file := write(t, randomLogs(rand.New(rand.NewPCG(1, 27)), 100), testMeta()).parquet
	broken := errors.New("broken")
	for name, create := range map[string]func(int) (io.Writer, io.Writer, func() error, error){
		"create": func(int) (io.Writer, io.Writer, func() error, error) { return nil, nil, nil, broken },
		"parquet": func(int) (io.Writer, io.Writer, func() error, error) {
			return failing{broken}, io.Discard, func() error { return nil }, nil
		},
		"sidecar": func(int) (io.Writer, io.Writer, func() error, error) {
			return io.Discard, failing{broken}, func() error { return nil }, nil
		},
		"done": func(int) (io.Writer, io.Writer, func() error, error) {
			return io.Discard, io.Discard, func() error { return broken }, nil
		},
	} {
		if _, err := Merge(t.Context(), []MergeInput{input("one", file)}, MergeOptions{Meta: testMeta(), Create: create}); !errors.Is(err, broken) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// TestDamagedInputs flips bytes of a segment: a merge of it is an error that names the segment, or has the same rows; Verify finds what a merge finds.
func TestDamagedInputs(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 28))
	w := write(t, randomLogs(rng, 400), testMeta())
	for range 400 {
		b := slices.Clone(w.parquet)
		b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		checkDamaged(t, b, w)
	}
}

func checkDamaged(t testing.TB, b []byte, w written) {
	t.Helper()
	var m merged
	r, err := Merge(t.Context(), []MergeInput{input("the-segment", b)}, MergeOptions{Create: m.create})
	if err != nil && !strings.Contains(err.Error(), "the-segment") {
		t.Errorf("the error does not name the segment: %v", err)
	}
	if err == nil && r.HashIn != w.RowHash && w.Rows > 0 {
		t.Errorf("other rows were merged without an error")
	}
	if _, err := Verify(t.Context(), bytes.NewReader(b), int64(len(b)), w.sidecar); err != nil {
		return
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 29))
	w := write(t, randomLogs(rng, 2*rowGroupRows), testMeta())
	r := checkSound(t, w.parquet, w.sidecar)
	if diff := cmp.Diff(w.Written, r.Written); diff != "" {
		t.Error(diff)
	}
	other := write(t, randomLogs(rng, 2*rowGroupRows), testMeta())
	if r, err := Verify(t.Context(), bytes.NewReader(w.parquet), w.Bytes, other.sidecar); err != nil || len(r.Problems) == 0 {
		t.Errorf("another segment's sidecar: %q, %v", r.Problems, err)
	}
	t.Run("finds a token that the filter has lost", func(t *testing.T) {
		t.Parallel()
		s, err := OpenSidecar(slices.Clone(w.sidecar))
		if err != nil {
			t.Fatal(err)
		}
		b := slices.Clone(w.sidecar)
		at := bytes.LastIndex(b, s.filter.groups[1].fuse.fingerprints)
		clear(b[at:])
		if r, err := Verify(t.Context(), bytes.NewReader(w.parquet), w.Bytes, b); err != nil || len(r.Problems) == 0 {
			t.Errorf("%q, %v", r.Problems, err)
		}
	})
	t.Run("finds rows out of order", func(t *testing.T) {
		t.Parallel()
		l := randomLogs(rand.New(rand.NewPCG(1, 30)), 10)
		var parquet, sidecar bytes.Buffer
		rows := sortedRows(l)
		slices.Reverse(rows)
		if _, err := WriteLogs(t.Context(), &parquet, &sidecar, l, rows, Meta{}); err != nil {
			t.Fatal(err)
		}
		r, err := Verify(t.Context(), bytes.NewReader(parquet.Bytes()), int64(parquet.Len()), sidecar.Bytes())
		if err != nil || len(r.Problems) == 0 {
			t.Errorf("%q, %v", r.Problems, err)
		}
		if _, err := Merge(t.Context(), []MergeInput{input("one", parquet.Bytes())}, MergeOptions{Create: (&merged{}).create}); err == nil {
			t.Error("rows out of order were merged")
		}
	})
}

// FuzzMerge merges and verifies what may be a damaged segment: there is an error, or a result that holds; never a panic.
func FuzzMerge(f *testing.F) {
	for seed := range uint64(3) {
		f.Add(write(f, randomLogs(rand.New(rand.NewPCG(seed, 31)), 1+int(seed)*40), testMeta()).parquet)
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkDamaged(t, b, written{}) })
}
