// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
)

// patience is how long a query may take before progress is drawn and statistics are worth a line.
const patience = time.Second

// meterOptions say what a meter may write.
type meterOptions struct {
	draw   bool // a terminal: draw progress
	always bool // statistics even of a short query, even without a terminal
	quiet  bool // no remarks
	now    func() time.Time
}

// meter shows on standard error how a query gets on, and what its answer lacks.
type meter struct {
	out     io.Writer
	options meterOptions
	started time.Time
	done    chan struct{}
	stopped sync.WaitGroup

	mu     sync.Mutex
	latest *queryv1.Statistics
	drawn  bool
	ended  bool
}

func startMeter(out io.Writer, options meterOptions) *meter {
	m := &meter{out: out, options: options, started: options.now(), done: make(chan struct{})}
	if options.draw {
		m.stopped.Go(m.loop)
	}
	return m
}

func (m *meter) loop() {
	ticker := time.NewTicker(patience / 5)
	defer ticker.Stop()
	for {
		select {
		case <-m.done:
			return
		case <-ticker.C:
			m.redraw()
		}
	}
}

func (m *meter) redraw() {
	m.mu.Lock()
	defer m.mu.Unlock()
	elapsed := m.options.now().Sub(m.started)
	if m.ended || elapsed < patience {
		return
	}
	fmt.Fprintf(m.out, "\r\x1b[K%s", progressLine(m.latest, elapsed))
	m.drawn = true
}

// progressLine is a bar when it is known how much there is to do.
func progressLine(s *queryv1.Statistics, elapsed time.Duration) string {
	if s.GetSegmentsConsidered() == 0 {
		return fmt.Sprintf("asking ... %.1fs", elapsed.Seconds())
	}
	const width = 30
	done := s.GetSegmentsRead() + s.GetSegmentsPruned()
	filled := int(min(done*width/s.GetSegmentsConsidered(), width))
	return fmt.Sprintf("[%s%s] %d/%d segments, %s read, %.1fs",
		strings.Repeat("=", filled), strings.Repeat(" ", width-filled), done, s.GetSegmentsConsidered(), formatBytes(s.GetBytesRead()), elapsed.Seconds())
}

func (m *meter) update(s *queryv1.Statistics) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.latest = s
}

// clear takes the progress off the screen before an answer is written.
func (m *meter) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.erase()
}

func (m *meter) erase() {
	if m.drawn {
		fmt.Fprint(m.out, "\r\x1b[K")
		m.drawn = false
	}
}

// stop ends the drawing.
func (m *meter) stop() {
	m.mu.Lock()
	ended := m.ended
	m.ended = true
	m.erase()
	m.mu.Unlock()
	if !ended {
		close(m.done)
	}
	m.stopped.Wait()
}

// finish stops, remarks on what the answer lacks, and prints statistics when they are wanted.
func (m *meter) finish(s *queryv1.Statistics) {
	m.stop()
	if s == nil {
		return
	}
	if !m.options.quiet {
		for _, remark := range remarks(s) {
			fmt.Fprintln(m.out, remark)
		}
	}
	long := m.options.now().Sub(m.started) >= patience
	if m.options.always || m.options.draw && long {
		fmt.Fprintln(m.out, statisticsLine(s))
	}
}

// remarks say why the answer may not be the whole truth.
func remarks(s *queryv1.Statistics) []string {
	var out []string
	if s.GetPartial() {
		out = append(out, "partial answer: "+s.GetPartialReason())
	}
	c := s.GetCompleteness()
	if n := c.GetPendingObjects(); n > 0 {
		out = append(out, fmt.Sprintf("not ingested yet: %s; the oldest is waiting since %s",
			formatCounted(n, "received object"), formatTime(c.GetOldestPending(), time.Local)))
	}
	if n := c.GetFailedObjects(); n > 0 {
		out = append(out, fmt.Sprintf("could not be ingested: %s; see `lakerunner receipts --state failed`", formatCounted(n, "object")))
	}
	return out
}

func statisticsLine(s *queryv1.Statistics) string {
	return fmt.Sprintf("%s rows from %s scanned in %s; segments: %d considered, %d pruned, %d read (%d cached); %s read, %s fetched, %d object requests",
		formatCount(s.GetRowsReturned()), formatCount(s.GetRowsScanned()), s.GetDuration().AsDuration().Round(time.Millisecond),
		s.GetSegmentsConsidered(), s.GetSegmentsPruned(), s.GetSegmentsRead(), s.GetCacheHits(),
		formatBytes(s.GetBytesRead()), formatBytes(s.GetBytesFetched()), s.GetObjectRequests())
}
