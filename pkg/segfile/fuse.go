// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"math"
	"math/bits"
)

// fuse is a binary fuse filter (Graf and Lemire, 2022): a set of hashes in about 1.2 times `width` bits each, in which a hash that was not put
// in is found with a probability of 2^-width.
type fuse struct {
	width        int // bits of a fingerprint: 8 or 4
	seed         uint64
	segment      uint32 // length of a segment, a power of two
	segments     uint32
	fingerprints []byte
}

// maxFuseTries bounds the search for a seed: the chance that one does not work is a few percent.
const maxFuseTries = 100

// fuseShape returns the length and number of segments for n keys.
func fuseShape(n int) (segment, segments uint32) {
	if n < 2 {
		return 4, 1
	}
	size := float64(n)
	segment = 1 << int(math.Floor(math.Log(size)/math.Log(3.33)+2.25))
	segment = min(segment, 1<<18)
	factor := math.Max(1.125, 0.875+0.25*math.Log(1e6)/math.Log(size))
	slots := uint32(math.Round(size * factor))
	segments = (slots + segment - 1) / segment
	return segment, max(segments, 3) - 2
}

func (f *fuse) slots() int { return int((f.segments + 2) * f.segment) }

func (f *fuse) bytes() int { return f.slots() * f.width / 8 }

// place returns the three slots of a key, and its fingerprint.
func (f *fuse) place(key uint64) (slots [3]uint32, fingerprint byte) {
	h := spread(key + f.seed)
	first, _ := bits.Mul64(h, uint64(f.segments)*uint64(f.segment))
	a := uint32(first)
	b := (a + f.segment) ^ uint32(h>>18)&(f.segment-1)
	c := (a + 2*f.segment) ^ uint32(h)&(f.segment-1)
	return [3]uint32{a, b, c}, byte(h^h>>32) & byte(1<<f.width-1)
}

// spread is the finalizer of MurmurHash3.
func spread(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

func (f *fuse) has(key uint64) bool {
	slots, fingerprint := f.place(key)
	return f.at(slots[0])^f.at(slots[1])^f.at(slots[2]) == fingerprint
}

func (f *fuse) at(slot uint32) byte {
	if f.width == 8 {
		return f.fingerprints[slot]
	}
	return f.fingerprints[slot/2] >> (4 * (slot % 2)) & 15
}

func (f *fuse) set(slot uint32, v byte) {
	if f.width == 8 {
		f.fingerprints[slot] = v
		return
	}
	shift := 4 * (slot % 2)
	f.fingerprints[slot/2] = f.fingerprints[slot/2]&^(15<<shift) | v<<shift
}

// fuseBuilder keeps its memory from one filter to the next.
type fuseBuilder struct {
	counts []uint8 // keys at a slot; there are never 255
	keys   []uint64
	ready  []uint32
	order  []peeled
}

// peeled is a key that was alone at one of its slots when it was taken out.
type peeled struct {
	key  uint64
	slot uint32
}

// build makes a filter of distinct keys. It reports false if no seed was found.
func (b *fuseBuilder) build(keys []uint64, width int) (fuse, bool) {
	f := fuse{width: width}
	f.segment, f.segments = fuseShape(len(keys))
	for try := range uint64(maxFuseTries) {
		f.seed = spread(try + 1)
		if b.peel(&f, keys) {
			f.fingerprints = make([]byte, f.bytes())
			b.assign(&f)
			return f, true
		}
	}
	return fuse{}, false
}

// peel takes out keys that are alone at a slot until none is left.
func (b *fuseBuilder) peel(f *fuse, keys []uint64) bool {
	n := f.slots()
	b.counts, b.keys = resized(b.counts, n), resized(b.keys, n)
	b.ready, b.order = b.ready[:0], b.order[:0]
	for _, key := range keys {
		slots, _ := f.place(key)
		for _, s := range slots {
			if b.counts[s] == math.MaxUint8 {
				return false
			}
			b.counts[s]++
			b.keys[s] ^= key
		}
	}
	for s, count := range b.counts {
		if count == 1 {
			b.ready = append(b.ready, uint32(s))
		}
	}
	for len(b.ready) > 0 {
		slot := b.ready[len(b.ready)-1]
		b.ready = b.ready[:len(b.ready)-1]
		if b.counts[slot] == 1 {
			b.take(f, b.keys[slot], slot)
		}
	}
	return len(b.order) == len(keys)
}

func (b *fuseBuilder) take(f *fuse, key uint64, slot uint32) {
	b.order = append(b.order, peeled{key: key, slot: slot})
	slots, _ := f.place(key)
	for _, s := range slots {
		b.counts[s]--
		b.keys[s] ^= key
		if b.counts[s] == 1 {
			b.ready = append(b.ready, s)
		}
	}
}

// assign sets fingerprints, last taken key first, so that the slot a key was alone at is still free.
func (b *fuseBuilder) assign(f *fuse) {
	for i := len(b.order) - 1; i >= 0; i-- {
		p := b.order[i]
		slots, fingerprint := f.place(p.key)
		others := fingerprint
		for _, s := range slots {
			if s != p.slot {
				others ^= f.at(s)
			}
		}
		f.set(p.slot, others)
	}
}

func resized[T uint8 | uint64](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	s = s[:n]
	clear(s)
	return s
}
