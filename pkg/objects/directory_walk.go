// SPDX-License-Identifier: AGPL-3.0-only

package objects

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"syscall"
)

// walk lists a directory in key order.
type walk struct {
	directory  *Directory
	ctx        context.Context //nolint:containedctx // it lives as long as one listing
	prefix     string
	startAfter string
	yield      func(Attributes, error) bool
}

// folder yields what lies below a folder; base is the beginning of its keys: "" or one that ends in a slash. It returns false
// when the listing is over.
func (w *walk) folder(name, base string) bool {
	if err := w.ctx.Err(); err != nil {
		return w.fail(err)
	}
	entries, err := fs.ReadDir(w.directory.root.FS(), name)
	if absent(err) {
		return true // deleted since its parent was read
	}
	if err != nil {
		return w.fail(err)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(keyPart(a), keyPart(b)) })
	for _, e := range entries {
		if !w.entry(e, base) {
			return false
		}
	}
	return true
}

func (w *walk) entry(e fs.DirEntry, base string) bool {
	key := base + keyPart(e)
	if e.IsDir() {
		return !w.mayHold(key) || w.folder(strings.TrimSuffix(key, "/"), key)
	}
	if !strings.HasPrefix(key, w.prefix) || key <= w.startAfter {
		return true
	}
	info, err := w.directory.root.Stat(key)
	if absent(err) || err == nil && !info.Mode().IsRegular() || leads(err) {
		return true
	}
	if err != nil {
		return w.fail(err)
	}
	return w.yield(describe(key, info), nil)
}

// mayHold reports whether keys that begin with base can be asked for.
func (w *walk) mayHold(base string) bool {
	if base == scratch+"/" {
		return false
	}
	if !strings.HasPrefix(base, w.prefix) && !strings.HasPrefix(w.prefix, base) {
		return false
	}
	// Every key below base is before startAfter, unless startAfter lies below base itself.
	return base > w.startAfter || strings.HasPrefix(w.startAfter, base)
}

func (w *walk) fail(err error) bool {
	w.yield(Attributes{}, w.directory.fail("list", w.prefix, err))
	return false
}

// keyPart is an entry's part of a key. With the slash that follows a folder's name in the keys below it, entries sort as their
// keys do: "a-b" before "a/b".
func keyPart(e fs.DirEntry) string {
	if e.IsDir() {
		return e.Name() + "/"
	}
	return e.Name()
}

// leads reports a symbolic link that leaves the directory.
func leads(err error) bool { return err != nil && strings.Contains(err.Error(), "path escapes") }

// isTopology reports a key that goes through a file, or is a folder: what a file system cannot hold beside what it holds.
func isTopology(err error) bool {
	return errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ENAMETOOLONG)
}
