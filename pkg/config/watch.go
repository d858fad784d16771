// SPDX-License-Identifier: AGPL-3.0-only

package config

import (
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// watch hears of changes in the directories of files: directories, because editors replace files, and Kubernetes swaps a symbolic
// link beside them. Hearing is a hint: where the system cannot watch, the channel stays silent and polling finds the change.
func watch(files []string) (heard <-chan struct{}, closeWatch func()) {
	out := make(chan struct{}, 1)
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return out, func() {}
	}
	for _, file := range files {
		// An error means that this directory cannot be watched; it is polled like all.
		_ = watcher.Add(filepath.Dir(file))
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		forward(watcher, out)
	}()
	return out, func() {
		_ = watcher.Close()
		<-ended
	}
}

func forward(watcher *fsnotify.Watcher, out chan<- struct{}) {
	for {
		select {
		case _, ok := <-watcher.Events:
			if !ok {
				return
			}
		case _, ok := <-watcher.Errors:
			if !ok {
				return
			}
		}
		select {
		case out <- struct{}{}:
		default: // one is waiting already
		}
	}
}
