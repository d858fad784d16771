// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
)

// TestVector reads every column of every row group in both ways that there are.
func TestVector(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		w := write(t, randomLogs(rand.New(rand.NewPCG(seed, 9)), 1+int(seed)*9000), testMeta())
		r := bytes.NewReader(w.parquet)
		c, err := ReadChunks(r, r.Size())
		if err != nil {
			t.Fatal(err)
		}
		file, err := openParquet(r, r.Size())
		if err != nil {
			t.Fatal(err)
		}
		v, err := NewVector()
		if err != nil {
			t.Fatal(err)
		}
		for g, group := range file.RowGroups() {
			for i, chunk := range group.ColumnChunks() {
				name := file.Schema().Fields()[i].Name()
				if err := v.Read(r, c, g, name); err != nil {
					t.Fatal(err)
				}
				for row, want := range readValues(t, chunk) {
					checkValue(t, name, row, v, want)
				}
			}
			if err := v.Read(r, c, g, "a_nothing"); err != nil || !v.IsNull(0) || v.Text(0) != "" || v.Number(0) != 0 {
				t.Fatalf("a column that is not there has a value, or the error %v", err)
			}
		}
	}
}

func readValues(t *testing.T, chunk parquet.ColumnChunk) []parquet.Value {
	t.Helper()
	pages := chunk.Pages()
	defer pages.Close()
	var all []parquet.Value
	for {
		page, err := pages.ReadPage()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		values := make([]parquet.Value, page.NumValues())
		if _, err := page.Values().ReadValues(values); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		for _, v := range values {
			all = append(all, v.Clone())
		}
	}
}

func checkValue(t *testing.T, name string, row int, v *Vector, want parquet.Value) {
	t.Helper()
	switch {
	case v.IsNull(row) != want.IsNull():
		t.Fatalf("%s, row %d: null is %v", name, row, v.IsNull(row))
	case want.IsNull():
	case want.Kind() == parquet.ByteArray || want.Kind() == parquet.FixedLenByteArray:
		if v.Text(row) != string(want.ByteArray()) {
			t.Fatalf("%s, row %d: %q, want %q", name, row, v.Text(row), want.ByteArray())
		}
	case want.Kind() == parquet.Boolean:
		if (v.Number(row) == 1) != want.Boolean() {
			t.Fatalf("%s, row %d: %d, want %v", name, row, v.Number(row), want.Boolean())
		}
	case want.Kind() == parquet.Int32:
		if v.Number(row) != int64(want.Int32()) {
			t.Fatalf("%s, row %d: %d, want %d", name, row, v.Number(row), want.Int32())
		}
	case v.Number(row) != int64(want.Uint64()):
		t.Fatalf("%s, row %d: %d, want %d", name, row, v.Number(row), want.Uint64())
	}
}

func TestContaining(t *testing.T) {
	t.Parallel()
	w := write(t, randomLogs(rand.New(rand.NewPCG(1, 9)), 5000), testMeta())
	r := bytes.NewReader(w.parquet)
	c, err := ReadChunks(r, r.Size())
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewVector()
	if err != nil {
		t.Fatal(err)
	}
	for g := range c.Groups() {
		if err := v.Read(r, c, g, "body"); err != nil {
			t.Fatal(err)
		}
		for _, needle := range []string{"e", "er", " ", "=", "aa", "no such text", "1", v.Text(0) + "x"} {
			var want []int32
			for row := range c.Rows(g) {
				if strings.Contains(v.Text(row), needle) {
					want = append(want, int32(row))
				}
			}
			if got := v.Containing(needle, nil); !slices.Equal(got, want) {
				t.Fatalf("%q is in %d rows, found in %d", needle, len(want), len(got))
			}
		}
	}
}

// TestDamagedChunks flips bytes: what is wrong is an error or a wrong value, never a panic.
func TestDamagedChunks(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(5, 9))
	w := write(t, randomLogs(rng, 300), testMeta())
	v, err := NewVector()
	if err != nil {
		t.Fatal(err)
	}
	for range 300 {
		b := slices.Clone(w.parquet)
		b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		r := bytes.NewReader(b)
		c, err := ReadChunks(r, r.Size())
		if err != nil {
			continue
		}
		for g := range c.Groups() {
			for name := range c.columns {
				if v.Read(r, c, g, name) != nil {
					continue
				}
				for row := range c.Rows(g) {
					if v.isText {
						_ = v.Text(row)
					} else {
						_ = v.Number(row)
					}
				}
			}
		}
	}
}
