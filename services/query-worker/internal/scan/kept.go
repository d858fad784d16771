// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"container/list"
	"sync"

	"github.com/lakerunner/lakerunner/pkg/segfile"
)

// kept holds columns of row groups as they are after reading, which is mostly decompression, within a budget of bytes. A column is kept when it is read
// a second time while others of no more than the budget were read in between: so a scan of more than fits drives out nothing.
type kept struct {
	budget int64

	mu    sync.Mutex
	first recentColumns // read once, without their values
	again recentColumns
}

// columnKey names one column of one row group.
type columnKey struct {
	segment string
	group   int
	column  string
}

type keptColumn struct {
	key    columnKey
	vector *segfile.Vector
	bytes  int64
}

// recentColumns are columns by when they were last used.
type recentColumns struct {
	byKey map[columnKey]*list.Element
	order *list.List // of keptColumn, most recently used first
	bytes int64
}

func newKept(budget int64) *kept {
	empty := func() recentColumns { return recentColumns{byKey: map[columnKey]*list.Element{}, order: list.New()} }
	return &kept{budget: budget, first: empty(), again: empty()}
}

// get returns a column if it is kept.
func (k *kept) get(key columnKey) *segfile.Vector {
	k.mu.Lock()
	defer k.mu.Unlock()
	place, ok := k.again.byKey[key]
	if !ok {
		return nil
	}
	k.again.order.MoveToFront(place)
	return place.Value.(keptColumn).vector
}

// offer tells of a column that was read.
func (k *kept) offer(key columnKey, v *segfile.Vector) {
	if k.budget <= 0 {
		return
	}
	k.mu.Lock()
	known := k.first.remove(key)
	if !known {
		k.first.add(keptColumn{key: key, bytes: v.Size()}, k.budget)
	}
	k.mu.Unlock()
	if !known {
		return
	}
	vector := v.Keep()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.again.remove(key)
	k.again.add(keptColumn{key, vector, vector.Size()}, k.budget)
}

func (r *recentColumns) remove(key columnKey) bool {
	place, ok := r.byKey[key]
	if ok {
		r.drop(place)
	}
	return ok
}

func (r *recentColumns) drop(place *list.Element) {
	dropped := r.order.Remove(place).(keptColumn)
	delete(r.byKey, dropped.key)
	r.bytes -= dropped.bytes
}

func (r *recentColumns) add(c keptColumn, budget int64) {
	if c.bytes > budget {
		return
	}
	r.byKey[c.key] = r.order.PushFront(c)
	for r.bytes += c.bytes; r.bytes > budget; {
		r.drop(r.order.Back())
	}
}
