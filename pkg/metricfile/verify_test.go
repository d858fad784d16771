// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

func verify(t testing.TB, w *written) Report {
	t.Helper()
	r, err := Verify(t.Context(), bytes.NewReader(w.parquet), int64(len(w.parquet)), w.sidecar)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func someSegment(t testing.TB, seed uint64, m Meta) (*written, *Store) {
	t.Helper()
	st := NewStore()
	fill(st, plots(rand.New(rand.NewPCG(seed, 2)), 60, 30))
	var rows []uint32
	for row := range st.Len() {
		if m.Shard.Holds(st.SeriesOf(row).Hash()) {
			rows = append(rows, uint32(row))
		}
	}
	return write(t, st, rows, m), st
}

func TestVerifyFindsASoundSegmentSound(t *testing.T) {
	t.Parallel()
	m := testMeta()
	m.Sources = []lake.ReceiptID{1, 2, 3, 4, 5}
	w, _ := someSegment(t, 1, m)
	r := verify(t, w)
	if len(r.Problems) > 0 {
		t.Errorf("problems: %q", r.Problems)
	}
	if r.Rows != w.Rows || r.RowHash != w.RowHash || r.Samples != w.Samples || r.Exemplars != w.Exemplars || !r.First.Equal(w.First) || !r.Last.Equal(w.Last) ||
		r.Bytes != w.Bytes || r.SidecarBytes != w.SidecarBytes || r.Series != w.Series {
		t.Errorf("read %+v, written %+v", r.Written, w.Written)
	}
	if len(r.Sources) == 0 || !slices.IsSorted(r.Sources) {
		t.Errorf("sources %v", r.Sources)
	}
}

func TestTheSidecarIsMadeAnewFromTheParquetFile(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		w, _ := someSegment(t, seed, testMeta())
		_, sidecar, err := RebuildCatalogue(t.Context(), bytes.NewReader(w.parquet), int64(len(w.parquet)))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(sidecar, w.sidecar) {
			t.Errorf("seed %d: the sidecar is another one", seed)
		}
	}
}

func TestVerifyFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	m := testMeta()
	w, _ := someSegment(t, 1, m)
	other, _ := someSegment(t, 2, m)
	foreign := *w
	foreign.sidecar = other.sidecar
	lying := m
	lying.Sources = []lake.ReceiptID{1}
	sources, _ := someSegment(t, 1, lying)
	for name, c := range map[string]struct {
		w    *written
		want string
	}{
		"another segment's sidecar":  {&foreign, "another segment's"},
		"a source that is not named": {sources, "of source 2"},
	} {
		r := verify(t, c.w)
		if !slices.ContainsFunc(r.Problems, func(p string) bool { return strings.Contains(p, c.want) }) {
			t.Errorf("%s: problems %q, want one with %q", name, r.Problems, c.want)
		}
	}
}

// TestNoDamageGoesUnnoticed flips bits all over the files.
func TestNoDamageGoesUnnoticed(t *testing.T) {
	t.Parallel()
	w, _ := someSegment(t, 3, testMeta())
	rng := rand.New(rand.NewPCG(4, 4))
	unnoticed := 0
	for range 300 {
		damaged := *w
		damaged.parquet = bytes.Clone(w.parquet)
		damaged.parquet[rng.IntN(len(damaged.parquet))] ^= 1 << rng.IntN(8)
		r, err := Verify(t.Context(), bytes.NewReader(damaged.parquet), int64(len(damaged.parquet)), damaged.sidecar)
		if err == nil && len(r.Problems) == 0 {
			unnoticed++ // statistics, encodings of columns, and what else readers do without
		}
	}
	if unnoticed > 15 {
		t.Errorf("%d of 300 flipped bits were not noticed", unnoticed)
	}
	for range 300 {
		sidecar := bytes.Clone(w.sidecar)
		sidecar[rng.IntN(len(sidecar))] ^= 1 << rng.IntN(8)
		if _, err := ReadCatalogue(sidecar); err == nil {
			t.Fatal("a flipped bit of the sidecar was not noticed")
		}
	}
}
