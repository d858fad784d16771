// SPDX-License-Identifier: AGPL-3.0-only

package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrInUse says that another process runs a server on the directory.
var ErrInUse = errors.New("another process runs PostgreSQL on this directory")

// lockDirectory claims a directory for this process; the kernel drops the lock when we die.
func lockDirectory(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, ErrInUse
	}
	return f, nil
}

// endOrphan waits for the end of a server whose starter died, and hurries it on. We hold the directory's lock, so whoever
// still serves it belongs to nobody.
func endOrphan(ctx context.Context, data string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	for {
		pid := postmaster(data)
		if pid == 0 || syscall.Kill(pid, 0) != nil || !serves(pid, data) {
			return nil
		}
		if err := syscall.Kill(pid, orphanSignal(time.Since(began))); err != nil {
			return fmt.Errorf("end the server %d that was left behind: %w", pid, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the server %d that was left behind does not end: %w", pid, ctx.Err())
		case <-tick.C:
		}
	}
}

// orphanSignal asks for a fast shutdown first and for an immediate one later; the signals may be repeated.
func orphanSignal(waited time.Duration) syscall.Signal {
	if waited < 20*time.Second {
		return syscall.SIGINT
	}
	return syscall.SIGQUIT
}

// postmaster reads the process id of the server that last served a data directory; zero: none is noted.
func postmaster(data string) int {
	b, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 0 {
		return 0
	}
	return pid
}
