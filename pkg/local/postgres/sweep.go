// SPDX-License-Identifier: AGPL-3.0-only

package postgres

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// Sweep removes directories of servers that nobody runs any more: those that match a pattern (as for filepath.Glob), are older than
// an age, and are not locked. For temporary directories, whose owners may have been killed.
func Sweep(ctx context.Context, pattern string, age time.Duration) error {
	dirs, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	var failures []error
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < age {
			continue
		}
		failures = append(failures, sweep(ctx, dir))
	}
	return errors.Join(failures...)
}

func sweep(ctx context.Context, dir string) error {
	lock, err := lockDirectory(dir)
	if err != nil {
		return nil // it is in use
	}
	defer lock.Close()
	if err := endOrphan(ctx, filepath.Join(dir, "data")); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}
