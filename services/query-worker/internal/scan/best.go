// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"container/heap"
	"slices"
	"sync"
)

// best collects the first lines in a direction, all of them if there is no limit. It is safe for concurrent use.
type best struct {
	limit   int // zero: none
	forward bool
	memory  *allowance

	mu    sync.Mutex
	lines []*line // with a limit a heap whose root is the last of them
}

// before reports whether a comes before b in the direction.
func (b *best) before(a, other position) bool {
	if b.forward {
		return a.compare(other) < 0
	}
	return a.compare(other) > 0
}

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (b *best) Len() int           { return len(b.lines) }
func (b *best) Less(i, j int) bool { return b.before(b.lines[j].position, b.lines[i].position) }
func (b *best) Swap(i, j int)      { b.lines[i], b.lines[j] = b.lines[j], b.lines[i] }
func (b *best) Push(l any)         { b.lines = append(b.lines, l.(*line)) }
func (b *best) Pop() any {
	last := b.lines[len(b.lines)-1]
	b.lines = b.lines[:len(b.lines)-1]
	return last
}

func (b *best) full() bool { return b.limit > 0 && len(b.lines) == b.limit }

// worst is where the last of the lines stands, once there are as many as the limit.
func (b *best) worst() (position, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.full() {
		return position{}, false
	}
	return b.lines[0].position, true
}

// wants reports whether a cut can hold a line that would be kept.
func (b *best) wants(k *cut) bool {
	if b.forward {
		return b.wantsAt(k.first())
	}
	return b.wantsAt(k.last())
}

// wantsAt reports whether a line of that time could be kept.
func (b *best) wantsAt(time int64) bool {
	worst, full := b.worst()
	switch {
	case !full:
		return true
	case b.forward:
		return time <= worst.time
	}
	return time >= worst.time
}

func (b *best) wantsPosition(p position) bool {
	worst, full := b.worst()
	return !full || b.before(p, worst)
}

func (b *best) add(l *line) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.full() {
		if !b.before(l.position, b.lines[0].position) {
			return nil
		}
		b.memory.give(b.lines[0].size())
		b.lines[0] = l
		heap.Fix(b, 0)
		return b.memory.take(l.size())
	}
	b.lines = append(b.lines, l)
	if b.full() {
		heap.Init(b)
	}
	return b.memory.take(l.size())
}

// sorted returns the lines in order and forgets that they were a heap.
func (b *best) sorted() []*line {
	slices.SortFunc(b.lines, func(x, y *line) int {
		if b.forward {
			return x.compare(y.position)
		}
		return y.compare(x.position)
	})
	return b.lines
}
