// SPDX-License-Identifier: AGPL-3.0-only

package cache

import (
	"container/list"
	"sync"
)

// recent is a least-recently-used map with a budget of bytes.
type recent[T any] struct {
	mu     sync.Mutex
	budget int64
	used   int64
	byName map[string]*list.Element
	order  *list.List // of entry[T], most recently used first
}

type entry[T any] struct {
	name  string
	value T
	bytes int64
}

func newRecent[T any](budget int64) *recent[T] {
	return &recent[T]{budget: budget, byName: map[string]*list.Element{}, order: list.New()}
}

func (r *recent[T]) get(name string) (T, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	place, ok := r.byName[name]
	if !ok {
		var none T
		return none, false
	}
	r.order.MoveToFront(place)
	return place.Value.(entry[T]).value, true
}

func (r *recent[T]) put(name string, value T, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.byName[name]; ok {
		return
	}
	r.byName[name] = r.order.PushFront(entry[T]{name, value, bytes})
	r.used += bytes
	for r.used > r.budget && r.order.Len() > 1 {
		oldest := r.order.Remove(r.order.Back()).(entry[T])
		delete(r.byName, oldest.name)
		r.used -= oldest.bytes
	}
}
