// SPDX-License-Identifier: AGPL-3.0-only

package cache

import (
	"cmp"
	"container/list"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// temporary begins the names of files that are not whole.
const temporary = "tmp-"

// fileName is an object's name on disk: a hash of where it is from, and its size, which is thereby verified when the directory is read again.
func fileName(o Object) string {
	sum := sha256.Sum256([]byte(o.Bucket + "\x00" + o.Key))
	return hex.EncodeToString(sum[:16]) + "-" + strconv.FormatInt(o.Bytes, 10) + filepath.Ext(o.Key)
}

// sizeOf reads the size out of a name that fileName made; false for any other.
func sizeOf(name string) (int64, bool) {
	stem := strings.TrimSuffix(name, filepath.Ext(name))
	hash, size, found := strings.Cut(stem, "-")
	if !found || len(hash) != 32 {
		return 0, false
	}
	n, err := strconv.ParseInt(size, 10, 64)
	return n, err == nil
}

// file is one file of the cache. Sparse ones have a bytes that grows.
type file struct {
	name  string
	bytes int64
	pins  int
	place *list.Element
	gone  func() // what else to do when it is removed
}

// files is the directory's index. Its owner holds a lock.
type files struct {
	dir    string
	budget int64
	used   int64
	byName map[string]*file
	recent *list.List // of *file, most recently used first
}

func newFiles(dir string, budget int64) files {
	return files{dir: dir, budget: budget, byName: map[string]*file{}, recent: list.New()}
}

// load reads the directory and removes what is not whole.
func (f *files) load() error {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return err
	}
	type found struct {
		name     string
		bytes    int64
		modified time.Time
	}
	var whole []found
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || entry.IsDir() {
			continue
		}
		size, ours := sizeOf(entry.Name())
		switch {
		case ours && size == info.Size():
			whole = append(whole, found{entry.Name(), size, info.ModTime()})
		case ours, strings.HasPrefix(entry.Name(), temporary):
			if err := os.Remove(filepath.Join(f.dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	slices.SortFunc(whole, func(a, b found) int {
		return cmp.Or(a.modified.Compare(b.modified), cmp.Compare(a.name, b.name))
	})
	for _, w := range whole {
		f.add(w.name, w.bytes)
	}
	f.evict()
	return nil
}

// add counts a new file in as the most recently used one.
func (f *files) add(name string, bytes int64) *file {
	added := &file{name: name, bytes: bytes}
	added.place = f.recent.PushFront(added)
	f.byName[name] = added
	f.used += bytes
	return added
}

// pin returns a file and keeps it; nil when there is none.
func (f *files) pin(name string) *file {
	found := f.byName[name]
	if found == nil {
		return nil
	}
	found.pins++
	f.recent.MoveToFront(found.place)
	return found
}

// grow counts bytes that a file has got.
func (f *files) grow(of *file, bytes int64) {
	of.bytes += bytes
	f.used += bytes
}

// evict removes what was not used for longest until the rest is within the budget, or pinned.
func (f *files) evict() { f.makeRoom(0) }

// makeRoom is evict with bytes to spare.
func (f *files) makeRoom(bytes int64) {
	for place := f.recent.Back(); place != nil && f.used+bytes > f.budget; {
		oldest := place.Value.(*file)
		place = place.Prev()
		if oldest.pins == 0 {
			f.remove(oldest)
		}
	}
}

// remove forgets a file. One that cannot be deleted is deleted, or counted again, at the next start.
func (f *files) remove(old *file) {
	f.recent.Remove(old.place)
	delete(f.byName, old.name)
	f.used -= old.bytes
	_ = os.Remove(filepath.Join(f.dir, old.name))
	if old.gone != nil {
		old.gone()
	}
}
