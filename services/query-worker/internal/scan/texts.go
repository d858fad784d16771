// SPDX-License-Identifier: AGPL-3.0-only

package scan

import "sync"

// texts keeps what was made of texts, because dashboards ask the same again and again. What it holds is not changed by those who get it.
type texts[T any] struct {
	mu     sync.Mutex
	byText map[string]T
}

// maxTexts and maxText bound texts; beyond, it begins anew, and longer ones are not kept.
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
	if t.byText == nil || len(t.byText) >= maxTexts {
		t.byText = map[string]T{}
	}
	t.byText[text] = made
	return made, nil
}
