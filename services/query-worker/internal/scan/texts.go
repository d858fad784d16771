// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"cmp"
	"sync"
)

// texts keeps what was made of texts, because dashboards ask the same again and again. What it holds is not changed by those who get it.
type texts[T any] struct {
	most int // how many; beyond, it begins anew. Zero: maxTexts

	mu     sync.Mutex
	byText map[string]T
}

// maxTexts is how many texts there are, and maxText the length of those that are kept.
const (
	maxTexts = 256
	maxText  = 16 << 10
)

func (t *texts[T]) get(text string, parse func(string) (T, error)) (T, error) {
	t.mu.Lock()
	known, ok := t.byText[text]
	t.mu.Unlock()
	if ok {
		return known, nil
	}
	made, err := parse(text)
	if err != nil || len(text) > maxText {
		return made, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byText == nil || len(t.byText) >= cmp.Or(t.most, maxTexts) {
		t.byText = map[string]T{}
	}
	t.byText[text] = made
	return made, nil
}
