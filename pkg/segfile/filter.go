// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"encoding/binary"
	"encoding/hex"
	"hash/maphash"
	"maps"
	"math"
	"math/bits"
	"slices"
	"strings"
	"unsafe"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
)

const (
	// maxWords bounds the dictionary; words that come later are treated as singles.
	maxWords = 1 << 14
	// filterShare is how much of a row group's bytes its filter may take, in percent.
	filterShare = 12
)

// longest is what is known of the tokens of a row group, for each charset: how long those with digits are, and the runs of digits in them; and the
// runs of letters that are not in the dictionary. It tells whether a needle can be a part of one. A token that is not indexed counts as longer than it
// is, so that it could be the needle.
type longest struct{ token, hex, decimal, letters [charsets]uint8 }

func (l *longest) tables() []*[charsets]uint8 {
	return []*[charsets]uint8{&l.token, &l.hex, &l.decimal, &l.letters}
}

func grow(v *uint8, n int) { *v = max(*v, uint8(min(n, math.MaxUint8))) }

// mayContain reports whether a token that is longer than n may have a part of length n with these characters. A part without digits may also be a
// whole token.
func (l *longest) mayContain(chars charset, n int) bool {
	n = min(n, math.MaxUint8-1)
	for of := range charset(charsets) {
		if of&chars == chars && l.fits(of, chars, n) {
			return true
		}
	}
	return false
}

func (l *longest) fits(of, chars charset, n int) bool {
	switch {
	case chars&digits == 0:
		return int(l.letters[of]) >= n
	case int(l.token[of]) <= n:
		return false
	case chars == digits:
		return int(l.decimal[of]) >= n
	case chars&^(digits|hexLetters) == 0:
		return int(l.hex[of]) >= n
	}
	return true
}

// filterBuilder indexes the bodies and trace ids of a segment's row groups, one after the other.
type filterBuilder struct {
	groups []builtGroup
	words  map[string]uint32
	// holders has for each word the row groups that hold it, in ascending order.
	holders  [][]uint32
	overflow bool

	seed   maphash.Seed
	recent []uint64 // hashes of words that the current row group is known to hold
	units  hashSet
	// long are the long tokens of the current row group; nil once they have proved too many to index their parts.
	long      map[string]struct{}
	longParts int
	fuse      fuseBuilder
	tokens    []token
	// previous is the text that was indexed last, in the same row group.
	previous string
}

type builtGroup struct {
	fuse    fuse // width 0: none
	longest longest
	// long is the same for long tokens. Where their parts are indexed, it counts only for needles that are shorter than a part.
	long  longest
	parts bool
	uuids bool
}

const recentWords = 1 << 13

// addGroup indexes the next row group, which takes size bytes in the Parquet file.
func (f *filterBuilder) addGroup(bodies []string, traceIDs []byte, size int64) {
	f.begin()
	g := &f.groups[len(f.groups)-1]
	for i, body := range bodies {
		if i == 0 || body != bodies[i-1] {
			f.addBody(g, body)
		}
	}
	var id [32]byte
	for len(traceIDs) > 0 {
		hex.Encode(id[:], traceIDs[:16])
		f.units.add(xxhash.Sum64(id[:]))
		traceIDs = traceIDs[16:]
	}
	f.end(g, size)
}

func (f *filterBuilder) begin() {
	if f.words == nil {
		f.words = map[string]uint32{}
		f.seed = maphash.MakeSeed()
		f.recent = make([]uint64, recentWords)
	}
	clear(f.recent)
	f.units.reset()
	f.long, f.longParts = map[string]struct{}{}, 0
	f.previous = ""
	f.groups = append(f.groups, builtGroup{})
}

// end makes the row group's filter, with shorter fingerprints or none at all if it would be too large.
func (f *filterBuilder) end(g *builtGroup, size int64) {
	f.addParts(g)
	keys := f.units.appendAll(nil)
	budget := int(size) * filterShare / 100
	for _, width := range []int{8, 4} {
		shape := fuse{width: width}
		shape.segment, shape.segments = fuseShape(len(keys))
		if shape.bytes() > max(budget, 256) {
			continue
		}
		if built, ok := f.fuse.build(keys, width); ok {
			g.fuse = built
			return
		}
	}
}

// addBody indexes a text, but for what it has in common with the one before: lines of one template, which stand together, differ in few places.
func (f *filterBuilder) addBody(g *builtGroup, s string) {
	p := f.previous
	f.previous = s
	for i, j := 0, 0; i < len(s); {
		n := commonPrefix(s[i:], p[min(j, len(p)):])
		if i+n == len(s) && j+n == len(p) {
			return
		}
		for n > 0 && !isBound[s[i+n-1]] {
			n--
		}
		i, j = i+n, j+n
		var end int
		f.tokens, end = appendPart(f.tokens[:0], s[i:])
		if len(f.tokens) > 0 {
			f.addPart(g, s[i:][:end])
		}
		i, j = i+end+1, nextBound(p, j, end)+1
	}
}

// nextBound is the place of a bound from i on, or the end: a part is likely to be as long as the one in its place in the text before.
func nextBound(s string, i, guess int) int {
	if i+guess < len(s) && isBound[s[i+guess]] {
		return i + guess
	}
	for i < len(s) && !isBound[s[i]] {
		i++
	}
	return i
}

// commonPrefix is how many bytes two texts begin with alike.
func commonPrefix(a, b string) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		x := binary.LittleEndian.Uint64(unsafe.Slice(unsafe.StringData(a[i:]), 8))
		y := binary.LittleEndian.Uint64(unsafe.Slice(unsafe.StringData(b[i:]), 8))
		if x != y {
			return i + bits.TrailingZeros64(x^y)/8
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// addPart indexes a text between two bounds, which has the tokens that were found.
func (f *filterBuilder) addPart(g *builtGroup, s string) {
	tokens := f.tokens
	for i := 0; i < len(tokens); i++ {
		f.addQuad(s, tokens[i:])
		if tokens[i].len() == uuidGroups[0] && i+5 <= len(tokens) && isUUID(s, tokens[i:i+5]) {
			f.addUUID(g, s, tokens[i:i+5])
			i += 4
			f.addQuad(s, tokens[i:])
			continue
		}
		f.addToken(g, s, tokens, i)
	}
}

// addQuad indexes the quad that begins with the first token, if one does.
func (f *filterBuilder) addQuad(s string, t []token) {
	if len(t) >= 4 && s[t[0].end] == '.' && isQuad(s, t[:4]) {
		f.addUnit(quadOf(s, t))
	}
}

func (f *filterBuilder) addUUID(g *builtGroup, s string, t []token) {
	g.uuids = true
	f.addUnit(s[t[1].start:t[3].end])
	for _, part := range t {
		f.note(&g.longest, s, part, false)
	}
}

func (f *filterBuilder) addToken(g *builtGroup, s string, tokens []token, i int) {
	t := tokens[i]
	switch unitOf(s, tokens, i) {
	case unitWord:
		if !f.addWord(t.of(s)) {
			f.addUnit(t.of(s))
			grow(&g.longest.letters[t.chars], t.len())
		}
	case unitSingle:
		f.addUnit(t.of(s))
		if t.len() >= longToken {
			f.addLong(g, s, t)
		} else {
			f.note(&g.longest, s, t, true)
		}
	case unitPair:
		f.addUnit(s[tokens[i-1].start:t.end])
		f.note(&g.longest, s, t, false)
	case unitNone:
		f.note(&g.longest, s, t, false)
	}
}

// note remembers what may be a part of a token that is not a word.
func (f *filterBuilder) note(l *longest, s string, t token, indexed bool) {
	n := t.len()
	if !indexed {
		n++
	}
	hex, decimal := n, n
	if t.chars != digits {
		hex, decimal = runsOf(t.of(s), func(run string, chars charset) {
			if len(run) < minRun || chars == hexLetters || len(run) > maxWord || !f.addWord(run) {
				grow(&l.letters[chars], len(run))
			}
		})
	}
	grow(&l.token[t.chars], n)
	grow(&l.hex[t.chars], hex)
	grow(&l.decimal[t.chars], decimal)
}

// maxParts bounds the parts of one row group's long tokens.
const maxParts = 1 << 14

func (f *filterBuilder) addLong(g *builtGroup, s string, t token) {
	f.note(&g.long, s, t, true)
	if f.long == nil {
		return
	}
	if _, ok := f.long[t.of(s)]; ok {
		return
	}
	if f.longParts += t.len() - partLength + 1; f.longParts > maxParts {
		f.long = nil
		return
	}
	f.long[strings.Clone(t.of(s))] = struct{}{}
}

func (f *filterBuilder) addParts(g *builtGroup) {
	g.parts = f.long != nil
	for _, token := range slices.Sorted(maps.Keys(f.long)) { // so that equal rows make equal files
		for i := range len(token) - partLength + 1 {
			f.addUnit(token[i:][:partLength])
		}
	}
}

func (f *filterBuilder) addUnit(s string) { f.units.add(xxhash.Sum64String(s)) }

// addWord puts a word into the dictionary, and reports false if that is full.
func (f *filterBuilder) addWord(word string) bool {
	hash := maphash.String(f.seed, word)
	recent := &f.recent[hash%recentWords]
	if *recent == hash {
		return true
	}
	id, ok := f.words[word]
	if !ok {
		if len(f.words) == maxWords {
			f.overflow = true
			return false
		}
		id = uint32(len(f.words))
		f.words[strings.Clone(word)] = id
		f.holders = append(f.holders, nil)
	}
	*recent = hash
	group := uint32(len(f.groups) - 1)
	if h := f.holders[id]; len(h) == 0 || h[len(h)-1] != group {
		f.holders[id] = append(h, group)
	}
	return true
}

// marshal appends the filter: the compressed dictionary and figures, and then the fingerprints, row group by row group.
func (f *filterBuilder) marshal(dst []byte, z *zstd.Encoder) []byte {
	var e encoder
	e.bool(f.overflow)
	sorted := make([]string, 0, len(f.words))
	for word := range f.words {
		sorted = append(sorted, word)
	}
	slices.Sort(sorted)
	e.uint(uint64(len(sorted)))
	for _, word := range sorted {
		e.string(word)
	}
	for _, word := range sorted {
		groups := newRowGroups(len(f.groups))
		for _, g := range f.holders[f.words[word]] {
			groups.add(int(g))
		}
		for _, w := range groups.words {
			e.uint(w)
		}
	}
	for i := range f.groups {
		e.group(&f.groups[i])
	}
	packed := z.EncodeAll(e.b, nil)
	dst = (&encoder{b: dst}).appended(packed)
	for i := range f.groups {
		dst = append(dst, f.groups[i].fuse.fingerprints...)
	}
	return dst
}

func (e *encoder) appended(b []byte) []byte {
	e.string(string(b))
	return e.b
}

func (e *encoder) group(g *builtGroup) {
	e.bool(g.uuids)
	e.bool(g.parts)
	for _, l := range []*longest{&g.longest, &g.long} {
		for _, table := range l.tables() {
			e.b = append(e.b, table[:]...)
		}
	}
	e.uint(uint64(g.fuse.width))
	e.uint(g.fuse.seed)
	e.uint(uint64(g.fuse.segment))
	e.uint(uint64(g.fuse.segments))
}

// hashSet is a set of hashes with open addressing.
type hashSet struct {
	slots []uint64
	n     int
	zero  bool
}

func (s *hashSet) reset() {
	clear(s.slots)
	s.n, s.zero = 0, false
}

func (s *hashSet) add(h uint64) {
	if h == 0 {
		s.zero = true
		return
	}
	if 2*s.n >= len(s.slots) {
		s.grow()
	}
	if s.put(h) {
		s.n++
	}
}

func (s *hashSet) put(h uint64) bool {
	mask := uint64(len(s.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		switch s.slots[i] {
		case h:
			return false
		case 0:
			s.slots[i] = h
			return true
		}
	}
}

func (s *hashSet) grow() {
	old := s.slots
	s.slots = make([]uint64, max(1<<12, 2*len(old)))
	for _, h := range old {
		if h != 0 {
			s.put(h)
		}
	}
}

func (s *hashSet) appendAll(dst []uint64) []uint64 {
	dst = slices.Grow(dst, s.n+1)
	if s.zero {
		dst = append(dst, 0)
	}
	for _, h := range s.slots {
		if h != 0 {
			dst = append(dst, h)
		}
	}
	return dst
}
