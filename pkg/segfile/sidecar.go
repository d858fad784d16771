// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

const sidecarMagic = "LRX1"

// Sidecar is the token filter and the catalogue of one segment.
type Sidecar struct {
	catalogue *Catalogue
	filter    *filter
}

// writeSidecar writes magic, the length of the catalogue, the catalogue, and the filter.
func writeSidecar(w io.Writer, z *zstd.Encoder, catalogue []byte, f *filterBuilder) (int64, error) {
	b := binary.LittleEndian.AppendUint32([]byte(sidecarMagic), uint32(len(catalogue)))
	b = append(b, catalogue...)
	b = f.marshal(b, z)
	n, err := w.Write(b)
	return int64(n), err
}

// OpenSidecar reads a sidecar. It keeps b.
func OpenSidecar(b []byte) (*Sidecar, error) {
	if len(b) < 8 || string(b[:4]) != sidecarMagic {
		return nil, fmt.Errorf("not a sidecar of a segment")
	}
	n := binary.LittleEndian.Uint32(b[4:])
	if uint64(n) > uint64(len(b)-8) {
		return nil, errDamaged
	}
	c, err := unmarshalCatalogue(b[8:][:n])
	if err != nil {
		return nil, err
	}
	f, err := openFilter(b[8+n:], len(c.RowGroups))
	if err != nil {
		return nil, err
	}
	return &Sidecar{catalogue: c, filter: f}, nil
}

// Catalogue returns what the segment holds.
func (s *Sidecar) Catalogue() *Catalogue { return s.catalogue }

// Candidates returns the row groups that may hold a row whose body contains all needles (case-sensitive substrings) and, if traceID is not
// nil, which has that trace id. It may return more row groups than hold one, never fewer.
func (s *Sidecar) Candidates(needles []string, traceID *[16]byte) RowGroups {
	return s.filter.candidates(needles, traceID)
}

// CandidatesOfAny returns the row groups that may hold a row whose body contains one of the needles.
func (s *Sidecar) CandidatesOfAny(needles []string) RowGroups {
	some := newRowGroups(len(s.filter.groups))
	for _, needle := range needles {
		some.union(s.filter.candidates([]string{needle}, nil))
	}
	return some
}

// RowGroups is a set of row groups of one segment, by their place in Catalogue.RowGroups.
type RowGroups struct {
	words []uint64
	n     int
}

func newRowGroups(n int) RowGroups { return RowGroups{words: make([]uint64, (n+63)/64), n: n} }

func allRowGroups(n int) RowGroups {
	g := newRowGroups(n)
	for i := range n {
		g.add(i)
	}
	return g
}

func (g RowGroups) add(i int) { g.words[i/64] |= 1 << (i % 64) }

// Has reports whether row group i is in the set.
func (g RowGroups) Has(i int) bool { return g.words[i/64]&(1<<(i%64)) != 0 }

// Total is the number of row groups of the segment.
func (g RowGroups) Total() int { return g.n }

// Count is the number of row groups in the set.
func (g RowGroups) Count() int {
	count := 0
	for i := range g.n {
		if g.Has(i) {
			count++
		}
	}
	return count
}

// Intersect keeps the row groups that are in o, too.
func (g RowGroups) Intersect(o RowGroups) {
	for i := range g.words {
		g.words[i] &= o.words[i]
	}
}

func (g RowGroups) union(o RowGroups) {
	for i := range g.words {
		g.words[i] |= o.words[i]
	}
}
