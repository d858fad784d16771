// SPDX-License-Identifier: AGPL-3.0-only

package columns

import "unsafe"

const (
	arenaBlock = 1 << 20
	// arenaLarge is the length from which a string gets a block of its own, so that no block's tail is wasted on it.
	arenaLarge = 1 << 18
)

// Text locates a string in the arena of one Logs.
type Text struct{ block, offset, length uint32 }

// Len is the string's length in bytes.
func (t Text) Len() int { return int(t.length) }

// arena holds the bytes of many strings in few allocations. Strings it hands out are valid until reset.
type arena struct {
	blocks [][]byte
	// current is the block that small strings go to; the ones after it are free.
	current int
	bytes   int64
}

func (a *arena) put(s string) Text {
	if len(s) == 0 {
		return Text{}
	}
	b := a.room(len(s))
	offset := len(a.blocks[b])
	a.blocks[b] = append(a.blocks[b], s...)
	return Text{block: uint32(b), offset: uint32(offset), length: uint32(len(s))}
}

// room returns a block that n more bytes fit into.
func (a *arena) room(n int) int {
	if n >= arenaLarge {
		return a.insert(n)
	}
	for a.current < len(a.blocks) {
		b := a.blocks[a.current]
		if cap(b)-len(b) >= n {
			return a.current
		}
		a.current++
	}
	a.blocks = append(a.blocks, make([]byte, 0, arenaBlock))
	a.bytes += arenaBlock
	a.current = len(a.blocks) - 1
	return a.current
}

// insert adds a block for one large string; small strings go on in the block they were in.
func (a *arena) insert(n int) int {
	a.blocks = append(a.blocks, make([]byte, 0, n))
	a.bytes += int64(n)
	return len(a.blocks) - 1
}

func (a *arena) get(t Text) string {
	if t.length == 0 {
		return ""
	}
	return unsafe.String(&a.blocks[t.block][t.offset], int(t.length))
}

// reset forgets the strings and keeps the ordinary blocks.
func (a *arena) reset() {
	kept := a.blocks[:0]
	for _, b := range a.blocks {
		if cap(b) == arenaBlock {
			kept = append(kept, b[:0])
		}
	}
	clear(a.blocks[len(kept):])
	a.blocks = kept
	a.current = 0
	a.bytes = int64(len(kept)) * arenaBlock
}

// texts gives equal strings equal numbers. Number 0 is the empty string.
type texts struct {
	ids    map[string]uint32
	values []string
	hashes []uint64
	last   uint32
}

func newTexts() texts {
	return texts{ids: map[string]uint32{"": 0}, values: []string{""}, hashes: []uint64{hashText("")}}
}

func (t *texts) intern(s string, a *arena) uint32 {
	if t.values[t.last] == s {
		return t.last
	}
	id, ok := t.ids[s]
	if !ok {
		id = uint32(len(t.values))
		own := a.get(a.put(s))
		t.ids[own] = id
		t.values = append(t.values, own)
		t.hashes = append(t.hashes, hashText(own))
	}
	t.last = id
	return id
}
