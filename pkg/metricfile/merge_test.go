// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// gauges is a segment of n series with one value each.
func gauges(t testing.TB, n int, value float64, m Meta) *written {
	t.Helper()
	st := NewStore()
	for i := range n {
		id := st.Series(&Series{Labels: labels.FromStrings("__name__", "g", "pod", fmt.Sprint(i))})
		st.Float(id, Stamp{Time: testStart.UnixNano(), Source: 1}, value)
	}
	return write(t, st, allRows(st), m)
}

func hourMeta() Meta { return Meta{Window: lake.WindowOf(testStart, time.Hour)} }

// discard are outputs that nobody reads.
func discard(begun *int) func(int) (io.Writer, io.Writer, func() error, error) {
	return func(int) (io.Writer, io.Writer, func() error, error) {
		*begun++
		return io.Discard, io.Discard, func() error { return nil }, nil
	}
}

func TestMergeRefuses(t *testing.T) {
	t.Parallel()
	one, other := gauges(t, 5, 1, hourMeta()), gauges(t, 5, 2, hourMeta())
	mixed := inputOf(one)
	mixed.Sidecar = other.sidecar
	half := inputOf(one)
	half.Parquet, half.Size = bytes.NewReader(one.parquet[:20]), 20
	nothing := inputOf(one)
	nothing.Sidecar = nil
	for name, c := range map[string]struct {
		input   MergeInput
		options MergeOptions
		kind    error
		says    string
	}{
		"the file of another sidecar":    {mixed, MergeOptions{Meta: hourMeta()}, nil, "were read, the catalogue has 5"},
		"half a file":                    {half, MergeOptions{Meta: hourMeta()}, nil, "merge in:"},
		"no sidecar":                     {nothing, MergeOptions{Meta: hourMeta()}, nil, "merge in:"},
		"a number of shards that is odd": {inputOf(one), MergeOptions{Meta: hourMeta(), Shards: 3}, fault.Internal, "into 3 shards"},
		"more memory than there is":      {inputOf(one), MergeOptions{Meta: hourMeta(), Memory: 1 << 20, Shards: 4}, fault.Exhausted, "merging 2 segments takes about"},
		"points of another hour": {
			inputOf(one), MergeOptions{Meta: Meta{Window: lake.WindowOf(testStart.Add(time.Hour), time.Hour)}}, fault.Internal, "window",
		},
	} {
		begun := 0
		c.options.Create = discard(&begun)
		_, err := Merge(t.Context(), []MergeInput{inputOf(other), c.input}, c.options)
		if err == nil || !strings.Contains(err.Error(), c.says) || c.kind != nil && !errors.Is(err, c.kind) {
			t.Errorf("%s: got %v", name, err)
		}
		if c.options.Memory > 0 && begun > 0 {
			t.Errorf("%s: an output was begun", name)
		}
	}
}

// TestAMergeOfManyShardsIsDoneInPasses has memory for some of the outputs.
func TestAMergeOfManyShardsIsDoneInPasses(t *testing.T) {
	t.Parallel()
	tr := drawTrial(t, rand.New(rand.NewPCG(4, 4)))
	want := tr.naive()
	inputs, _ := tr.mergeInputs()
	for _, memory := range []int64{14 << 20, 30 << 20, 60 << 20} {
		result, outputs := mergeOf(t, inputs, 16, memory)
		if diff := gocmp.Diff(want.lines, linesOf(t, outputs)); diff != "" || result.RowsIn != want.result.RowsIn || result.HashLeft != want.result.HashLeft {
			t.Errorf("with %d bytes (-want +got):\n%s", memory, diff)
		}
	}
}

func TestMergeOfRollupsIsRefused(t *testing.T) {
	t.Parallel()
	var parquet, sidecar bytes.Buffer
	m := hourMeta()
	m.Resolution = time.Minute
	rows := func(yield func(*Series, *Rollup) bool) {
		s := &Series{Labels: labels.FromStrings("__name__", "g")}
		one := []float64{1}
		track := Track{First: one, Last: one, Increase: one, Sum: one, Min: one, Max: one}
		at := []int64{testStart.Add(time.Minute).UnixMilli()}
		yield(s, &Rollup{Ends: at, Counts: []int64{1}, FirstTimes: at, LastTimes: at, StaleTimes: []int64{0}, Tracks: []Track{track}})
	}
	if _, err := WriteRollups(t.Context(), &parquet, &sidecar, rows, m); err != nil {
		t.Fatal(err)
	}
	begun := 0
	in := MergeInput{Parquet: bytes.NewReader(parquet.Bytes()), Size: int64(parquet.Len()), Sidecar: sidecar.Bytes()}
	_, err := Merge(t.Context(), []MergeInput{in}, MergeOptions{Meta: hourMeta(), Create: discard(&begun)})
	if err == nil || !strings.Contains(err.Error(), "rollups are not merged") || begun > 0 {
		t.Errorf("got %v", err)
	}
}

func TestMergeEndsWithItsSurroundings(t *testing.T) {
	t.Parallel()
	in := inputOf(gauges(t, 3, 1, hourMeta()))
	failing := errors.New("disk full")
	for name, create := range map[string]func(int) (io.Writer, io.Writer, func() error, error){
		"no output":           func(int) (io.Writer, io.Writer, func() error, error) { return nil, nil, nil, failing },
		"a file that is full": func(int) (io.Writer, io.Writer, func() error, error) { return full{failing}, io.Discard, nil, nil },
		"a sidecar that is":   func(int) (io.Writer, io.Writer, func() error, error) { return io.Discard, full{failing}, nil, nil },
		"what is not finished": func(int) (io.Writer, io.Writer, func() error, error) {
			return io.Discard, io.Discard, func() error { return failing }, nil
		},
	} {
		if _, err := Merge(t.Context(), []MergeInput{in}, MergeOptions{Meta: hourMeta(), Create: create}); !errors.Is(err, failing) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	begun := 0
	if _, err := Merge(ctx, []MergeInput{in}, MergeOptions{Meta: hourMeta(), Create: discard(&begun)}); !errors.Is(err, context.Canceled) || begun > 0 {
		t.Errorf("got %v", err)
	}
}

type full struct{ error }

func (f full) Write([]byte) (int, error) { return 0, f.error }

func TestWithoutPointsThereAreNoOutputs(t *testing.T) {
	t.Parallel()
	in := inputOf(gauges(t, 3, 1, hourMeta()))
	in.Drop = []DropRule{{Reason: ReasonExpired, Start: math.MinInt64, End: math.MaxInt64}}
	begun := 0
	result, err := Merge(t.Context(), []MergeInput{in}, MergeOptions{Meta: hourMeta(), Shards: 8, Create: discard(&begun)})
	if err != nil || begun > 0 || result.Expired != 3 || result.RowsOut != 0 || len(result.Outputs) > 0 {
		t.Errorf("%+v, %v", result, err)
	}
}

// TestBoundsThatChangeAreOtherRows has a histogram whose bounds grow in the middle of an hour.
func TestBoundsThatChangeAreOtherRows(t *testing.T) {
	t.Parallel()
	var inputs []MergeInput
	for i, bounds := range [][]float64{{1}, {1, 2}, {1}} {
		st := NewStore()
		s := &Series{Labels: labels.FromStrings("__name__", "h"), Kind: KindClassic, Bounds: bounds}
		buckets := make([]uint64, len(bounds)+1)
		st.Classic(st.Series(s), Stamp{Time: testStart.UnixNano() + int64(i), Source: lake.ReceiptID(i + 1)}, 0, 0, buckets)
		inputs = append(inputs, inputOf(write(t, st, allRows(st), hourMeta())))
	}
	_, outputs := mergeOf(t, inputs, 1)
	c := outputs[0].catalogue
	if c.Len() != 2 || c.Entry(0).Rows != 2 || c.Entry(1).Rows != 1 || len(c.Series(1).Bounds) != 2 {
		t.Errorf("%d rows: %+v, %+v", c.Len(), c.Entry(0), c.Entry(1))
	}
}
