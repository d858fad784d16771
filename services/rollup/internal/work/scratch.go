// SPDX-License-Identifier: AGPL-3.0-only

package work

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// prefix begins the names of the directories of leases.
const prefix = "rollup-"

// abandoned is how long nothing must have happened in a lease's directory for it to be one of a process that died.
const abandoned = time.Hour

// RemoveAbandoned removes what processes that died have left in a directory.
func RemoveAbandoned(directory string) error {
	entries, err := os.ReadDir(directory)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !strings.HasPrefix(e.Name(), prefix) || time.Since(info.ModTime()) < abandoned {
			continue
		}
		if err := os.RemoveAll(filepath.Join(directory, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// scratch is a directory for files whose bytes together are bounded.
type scratch struct {
	directory string
	limit     int64

	mu    sync.Mutex
	used  int64
	files []*os.File
	made  int
}

// create makes a file. It is removed by clear.
func (s *scratch) create() (*spilled, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	file, err := os.Create(filepath.Join(s.directory, fmt.Sprintf("%06d", s.made)))
	if err != nil {
		return nil, scratchError(err)
	}
	s.made++
	s.files = append(s.files, file)
	return &spilled{file: file, scratch: s}, nil
}

// clear removes all files.
func (s *scratch) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, file := range s.files {
		file.Close()
		os.Remove(file.Name())
	}
	s.files, s.used = nil, 0
}

// discard removes a file before the others.
func (s *scratch) discard(f *spilled) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.files, f.file); i >= 0 {
		s.files = slices.Delete(s.files, i, i+1)
		s.used -= f.size
		f.file.Close()
		os.Remove(f.file.Name())
	}
}

// reserve takes bytes of the limit.
func (s *scratch) reserve(n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used+n > s.limit {
		return fault.New(fault.Exhausted, "the rollup takes more than the %d MiB of scratch that it may use", s.limit>>20)
	}
	s.used += n
	return nil
}

// spilled is a scratch file. It has no more of a file's methods than it needs: bytes that came in by another one would not be counted.
type spilled struct {
	file    *os.File
	scratch *scratch
	size    int64
}

// Write writes within the scratch's limit.
func (f *spilled) Write(b []byte) (int, error) {
	if err := f.scratch.reserve(int64(len(b))); err != nil {
		return 0, err
	}
	f.size += int64(len(b))
	n, err := f.file.Write(b)
	if err != nil {
		return n, spilling{scratchError(err)}
	}
	return n, nil
}

// ReadAt reads what was written.
func (f *spilled) ReadAt(b []byte, offset int64) (int, error) { return f.file.ReadAt(b, offset) }

// spilling marks an error as the disk's: it says nothing about the segments.
type spilling struct{ error }

// Unwrap returns the error.
func (s spilling) Unwrap() error { return s.error }

func isSpilling(err error) bool { return errors.As(err, new(spilling)) }
