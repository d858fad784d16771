// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"encoding/hex"
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
)

// filter answers which row groups may hold a needle.
type filter struct {
	groups   []builtGroup
	words    []string // sorted
	holders  []uint64 // of each word a RowGroups
	overflow bool     // there are words beyond the dictionary, indexed as singles
}

// openFilter reads what filterBuilder.marshal wrote. It keeps b.
func openFilter(b []byte, groups int) (*filter, error) {
	outer := decoder{b: b}
	packed := outer.bytes()
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxCatalogue))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	plain, err := z.DecodeAll(packed, nil)
	if err != nil || outer.err != nil {
		return nil, errDamaged
	}
	d := decoder{b: plain}
	f := &filter{overflow: d.bool(), words: list(&d, (*decoder).string)}
	f.holders = make([]uint64, len(f.words)*((groups+63)/64))
	for i := range f.holders {
		f.holders[i] = d.uint()
	}
	for range groups {
		g := d.group()
		if n := g.fuse.bytes(); g.fuse.width != 0 && d.err == nil {
			if n > len(outer.b) {
				return nil, errDamaged
			}
			g.fuse.fingerprints, outer.b = outer.b[:n], outer.b[n:]
		}
		f.groups = append(f.groups, g)
	}
	return f, d.err
}

func (d *decoder) group() builtGroup {
	g := builtGroup{uuids: d.bool(), parts: d.bool()}
	for _, l := range []*longest{&g.longest, &g.long} {
		for _, table := range l.tables() {
			if len(d.b) < charsets {
				d.err, d.b = errDamaged, nil
				return g
			}
			copy(table[:], d.b)
			d.b = d.b[charsets:]
		}
	}
	width, seed, segment, segments := d.uint(), d.uint(), d.uint(), d.uint()
	if width != 0 && width != 4 && width != 8 || segment > 1<<18 || segments > 1<<30 || segment*(segments+2) > math.MaxInt32 || segment&(segment-1) != 0 {
		d.err, d.b = errDamaged, nil
		return g
	}
	g.fuse = fuse{width: int(width), seed: seed, segment: uint32(segment), segments: uint32(segments)}
	return g
}

func (f *filter) candidates(needles []string, traceID *[16]byte) RowGroups {
	all := allRowGroups(len(f.groups))
	if traceID != nil {
		all.Intersect(f.holding(hex.EncodeToString(traceID[:])))
	}
	for _, needle := range needles {
		f.prune(all, needle)
	}
	return all
}

// holding returns the row groups that hold a unit.
func (f *filter) holding(unit string) RowGroups {
	hash := xxhash.Sum64String(unit)
	return f.where(func(g *builtGroup) bool { return g.holds(hash) })
}

func (g *builtGroup) holds(hash uint64) bool { return g.fuse.width == 0 || g.fuse.has(hash) }

// holdersOf returns the row groups that hold a word.
func (f *filter) holdersOf(word int) RowGroups {
	n := (len(f.groups) + 63) / 64
	return RowGroups{words: f.holders[word*n:][:n], n: len(f.groups)}
}

func (f *filter) where(condition func(*builtGroup) bool) RowGroups {
	groups := newRowGroups(len(f.groups))
	for i := range f.groups {
		if condition(&f.groups[i]) {
			groups.add(i)
		}
	}
	return groups
}

// prune takes those row groups out that cannot hold a needle, by each of its tokens.
func (f *filter) prune(all RowGroups, needle string) {
	tokens := appendTokens(nil, needle)
	for i, t := range tokens {
		cutLeft, cutRight := t.start == 0, int(t.end) == len(needle)
		switch {
		case cutLeft || cutRight:
			f.pruneEdge(all, t.of(needle), t, cutLeft, cutRight)
		default:
			f.pruneWhole(all, needle, tokens, i)
		}
		if i+4 <= len(tokens) && isQuad(needle, tokens[i:i+4]) {
			all.Intersect(f.holding(quadOf(needle, tokens[i:])))
		}
	}
}

// pruneEdge prunes by a token that may go on beyond the needle.
func (f *filter) pruneEdge(all RowGroups, s string, t token, cutLeft, cutRight bool) {
	if t.hasDigit() {
		if t.len() < shortToken || fraction(s) {
			return
		}
		groups := f.holding(s)
		groups.union(f.mayContain(s, t))
		all.Intersect(groups)
		return
	}
	groups := f.mayContain(s, t)
	for i, word := range f.words {
		if cutLeft && cutRight && strings.Contains(word, s) || cutLeft && strings.HasSuffix(word, s) || cutRight && strings.HasPrefix(word, s) {
			groups.union(f.holdersOf(i))
		}
	}
	all.Intersect(groups)
}

// mayContain returns the row groups in which a token that is not a word may have s as a part.
func (f *filter) mayContain(s string, t token) RowGroups {
	var parts []uint64
	for i := range max(0, len(s)-partLength+1) {
		parts = append(parts, xxhash.Sum64String(s[i:][:partLength]))
	}
	return f.where(func(g *builtGroup) bool {
		if g.longest.mayContain(t.chars, t.len()) {
			return true
		}
		missing := g.parts && slices.ContainsFunc(parts, func(hash uint64) bool { return !g.holds(hash) })
		return !missing && g.long.mayContain(t.chars, t.len())
	})
}

// pruneWhole prunes by a token that the needle has all of.
func (f *filter) pruneWhole(all RowGroups, needle string, tokens []token, i int) {
	groups, ok := f.unitGroups(needle, tokens, i)
	if !ok {
		return
	}
	if uuidPart(needle, tokens, i) {
		groups.union(f.uuidGroups(needle, tokens, i))
	}
	all.Intersect(groups)
}

// unitGroups returns the row groups that hold the token's unit, and false if the unit is not known or not indexed.
func (f *filter) unitGroups(needle string, tokens []token, i int) (RowGroups, bool) {
	t := tokens[i]
	if t.len() < shortToken && needle[t.start-1] == '-' {
		if t.start == 1 {
			return RowGroups{}, false // what is before the hyphen is not known
		}
		if i > 0 && tokens[i-1].start == 0 && joined(needle, tokens[i-1], t, '-') {
			return RowGroups{}, false // nor is it if it is cut
		}
	}
	switch unitOf(needle, tokens, i) {
	case unitWord:
		return f.wordGroups(t.of(needle)), true
	case unitSingle:
		return f.holding(t.of(needle)), true
	case unitPair:
		return f.holding(needle[tokens[i-1].start:t.end]), true
	}
	return RowGroups{}, false
}

func (f *filter) wordGroups(word string) RowGroups {
	groups := newRowGroups(len(f.groups))
	if i := sort.SearchStrings(f.words, word); i < len(f.words) && f.words[i] == word {
		groups.union(f.holdersOf(i))
	}
	if f.overflow {
		groups.union(f.holding(word))
	}
	return groups
}

// uuidGroups returns the row groups in which a token may be a group of a UUID: if the needle has all its middle groups, those that hold them.
func (f *filter) uuidGroups(needle string, tokens []token, i int) RowGroups {
	groups := f.where(func(g *builtGroup) bool { return g.uuids })
	for first := max(0, i-2); first <= i && first+3 <= len(tokens); first++ {
		if middle := tokens[first : first+3]; isMiddle(needle, middle) {
			groups.Intersect(f.holding(needle[middle[0].start:middle[2].end]))
		}
	}
	return groups
}

// isMiddle reports whether three tokens, with hyphens around, may be the middle groups of a UUID.
func isMiddle(s string, t []token) bool {
	for _, part := range t {
		if part.len() != 4 || !part.isHex() {
			return false
		}
	}
	return joined(s, t[0], t[1], '-') && joined(s, t[1], t[2], '-') &&
		t[0].start > 0 && s[t[0].start-1] == '-' && int(t[2].end) < len(s) && s[t[2].end] == '-'
}
