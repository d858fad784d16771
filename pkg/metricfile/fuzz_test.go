// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// sealed makes a sidecar of a head and blocks, so that what is fuzzed is not merely the checksum.
func sealed(t testing.TB, head, blocks []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	packed := z.EncodeAll(head, nil)
	b := binary.LittleEndian.AppendUint32([]byte(sidecarMagic), uint32(len(packed)))
	b = append(append(b, packed...), blocks...)
	return binary.LittleEndian.AppendUint64(b, xxhash.Sum64(b))
}

// unsealed is the inverse.
func unsealed(t testing.TB, sidecar []byte) (head, blocks []byte) {
	t.Helper()
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	n := binary.LittleEndian.Uint32(sidecar[4:])
	head, err = z.DecodeAll(sidecar[8:][:n], nil)
	if err != nil {
		t.Fatal(err)
	}
	return head, sidecar[8+n : len(sidecar)-8]
}

// use asks a catalogue for all that it has.
func use(c *Catalogue, parquet []byte) {
	matchers := []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "pod", ".*1"), labels.MustNewMatcher(labels.MatchNotEqual, "le", "x")}
	c.Select(matchers, lake.Shard{Index: 1, Count: 2})
	c.Families()
	c.LabelNames()
	for i := range min(c.Len(), 1000) {
		c.Series(i)
		c.Entry(i)
		c.Value(i, "pod")
	}
	r, err := Open(bytes.NewReader(parquet), int64(len(parquet)), c)
	if err != nil {
		return
	}
	var p Points
	var rollup Rollup
	for i := range min(c.Len(), 100) {
		if c.Entry(i).Rows > 1<<16 {
			continue
		}
		_ = r.Points(i, WantAll, &p)
		_ = r.Rollup(i, &rollup)
	}
}

func FuzzReadCatalogue(f *testing.F) {
	w, _ := someSegment(f, 6, testMeta())
	head, blocks := unsealed(f, w.sidecar)
	f.Add(head, blocks)
	rollups := writeRollups(f, rollups(rand.New(rand.NewPCG(7, 7)), 20), rollupMeta())
	head, blocks = unsealed(f, rollups.sidecar)
	f.Add(head, blocks)
	f.Fuzz(func(t *testing.T, head, blocks []byte) {
		c, err := ReadCatalogue(sealed(t, head, blocks))
		if err == nil {
			use(c, w.parquet)
		}
		_, _ = ReadCatalogue(head)
	})
}

// FuzzRead reads rows of a file that is not what its catalogue says, and rebuilds its catalogue.
func FuzzRead(f *testing.F) {
	w, _ := someSegment(f, 6, testMeta())
	rolled := writeRollups(f, rollups(rand.New(rand.NewPCG(7, 7)), 20), rollupMeta())
	f.Add(w.parquet)
	f.Add(rolled.parquet)
	f.Fuzz(func(t *testing.T, parquet []byte) {
		use(w.catalogue, parquet)
		use(rolled.catalogue, parquet)
		if c, _, err := RebuildCatalogue(t.Context(), bytes.NewReader(parquet), int64(len(parquet))); err == nil {
			use(c, parquet)
		}
	})
}
