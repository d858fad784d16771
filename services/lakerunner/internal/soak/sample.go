// SPDX-License-Identifier: AGPL-3.0-only

package soak

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// figures are one sample.
type figures struct {
	At                  time.Duration // since the start
	RSS                 int64         // bytes
	Rows                int64         // live, of all segments
	Segments            int64         // live
	Debt                int64         // segments that wait for compaction
	Lag                 time.Duration // of the oldest object that waits for ingest
	Disk                int64         // bytes of the bucket
	Asked               int           // queries since the sample before
	Middle, Ninetyninth time.Duration // their p50 and p99
}

// sample takes the figures of the moment. A task that is buried ends the soak.
func (s *soak) sample(ctx context.Context, at time.Duration) (f figures, err error) {
	f.At = at
	if f.RSS, err = residentBytes(); err != nil {
		return f, err
	}
	debts, err := s.index.CompactionDebt(ctx, organization)
	if err != nil {
		return f, err
	}
	for _, d := range debts {
		f.Rows, f.Segments, f.Debt = f.Rows+d.Rows, f.Segments+d.Segments, f.Debt+d.DebtSegments
	}
	backlog, err := s.index.Backlog(ctx)
	if err != nil {
		return f, err
	}
	for _, b := range backlog {
		if b.Buried > 0 {
			return f, fmt.Errorf("%d tasks of kind %s are buried", b.Buried, b.Kind)
		}
		if b.Kind == lake.TaskIngest && !b.Oldest.IsZero() {
			f.Lag = max(f.Lag, time.Since(b.Oldest))
		}
	}
	if f.Disk, err = diskBytes(s.storage()); err != nil {
		return f, err
	}
	f.Asked, f.Middle, f.Ninetyninth = s.latency.take()
	return f, nil
}

// residentBytes is the process's resident memory.
func residentBytes() (int64, error) {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		return 0, fmt.Errorf("read the process's memory: %w", err)
	}
	return resident * int64(os.Getpagesize()), nil
}

// latencies collects how long queries took.
type latencies struct {
	mu   sync.Mutex
	took []time.Duration
}

func (l *latencies) measure(f func() error) error {
	began := time.Now()
	if err := f(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.took = append(l.took, time.Since(began))
	return nil
}

// take returns the figures since the last time.
func (l *latencies) take() (asked int, middle, ninetyninth time.Duration) {
	l.mu.Lock()
	took := l.took
	l.took = nil
	l.mu.Unlock()
	if len(took) == 0 {
		return 0, 0, 0
	}
	slices.Sort(took)
	return len(took), took[len(took)/2], took[len(took)*99/100]
}

// series are the samples so far.
type series struct{ all []figures }

func (s *series) header(out io.Writer) {
	fmt.Fprintln(out, "| after | RSS MB | rows | segments | debt | lag s | disk MB | queries | p50 ms | p99 ms |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|---|---|---|")
}

func (s *series) add(out io.Writer, f figures) {
	s.all = append(s.all, f)
	fmt.Fprintf(out, "| %s | %d | %d | %d | %d | %.1f | %.1f | %d | %d | %d |\n", f.At, f.RSS>>20, f.Rows, f.Segments, f.Debt, f.Lag.Seconds(),
		float64(f.Disk)/(1<<20), f.Asked, f.Middle.Milliseconds(), f.Ninetyninth.Milliseconds())
}

// verdict compares the middle third of the samples with the last one: by their medians, since compaction comes in waves.
func (s *series) verdict(out io.Writer) error {
	third := len(s.all) / 3
	if third < 2 {
		return errors.New("too short for a verdict: there are fewer than six samples")
	}
	before, after := s.all[third:2*third], s.all[2*third:]
	var unsteady []error
	for _, m := range []struct {
		name   string
		of     func(figures) float64
		factor float64 // that it may grow by
		spare  float64 // that it may grow by in any case
	}{
		{"memory in MB", func(f figures) float64 { return float64(f.RSS) / (1 << 20) }, 1.15, 64},
		{"debt in segments", func(f figures) float64 { return float64(f.Debt) }, 1.25, 32},
		{"lag in seconds", func(f figures) float64 { return f.Lag.Seconds() }, 1.25, 5},
		{"p50 in milliseconds", func(f figures) float64 { return float64(f.Middle.Milliseconds()) }, 1.5, 50},
		{"p99 in milliseconds", func(f figures) float64 { return float64(f.Ninetyninth.Milliseconds()) }, 1.5, 250},
	} {
		from, to := median(before, m.of), median(after, m.of)
		steady := to <= max(from*m.factor, from+m.spare)
		fmt.Fprintf(out, "%s: %.1f, then %.1f: %s\n", m.name, from, to, map[bool]string{true: "steady", false: "rising"}[steady])
		if !steady {
			unsteady = append(unsteady, fmt.Errorf("%s rises from %.1f to %.1f", m.name, from, to))
		}
	}
	return errors.Join(unsteady...)
}

func median(samples []figures, of func(figures) float64) float64 {
	values := make([]float64, 0, len(samples))
	for _, f := range samples {
		values = append(values, of(f))
	}
	slices.SortFunc(values, cmp.Compare)
	return values[len(values)/2]
}
