// SPDX-License-Identifier: AGPL-3.0-only

package indexbench

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// Report holds the figures of a run.
type Report struct {
	Segments, Organizations, Days, Pending int
	Load                                   time.Duration
	// TableBytes and IndexBytes are of the tables of segments, their sources and the versions of their hours.
	TableBytes, IndexBytes int64
	Timings                []Timing
	// LoadAverage is the machine's when measuring began, over a minute; empty: not known.
	LoadAverage       string
	RetentionSegments int
	Retention         time.Duration
}

// Timing says how long calls of one kind took.
type Timing struct {
	Name          string
	Calls         int
	P50, P99, Max time.Duration
	Note          string
}

func (r *Report) add(name string, times []time.Duration, note string) {
	if len(times) == 0 {
		return
	}
	slices.Sort(times)
	at := func(share float64) time.Duration { return times[min(len(times)-1, int(share*float64(len(times))))] }
	r.Timings = append(r.Timings, Timing{Name: name, Calls: len(times), P50: at(.5), P99: at(.99), Max: times[len(times)-1], Note: note})
}

// Print writes the figures as Markdown.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintf(w, "%d segments of %d organizations over %d days, %d pending objects of one of them; %s. Load average when measuring began: %s.\n\n",
		r.Segments, r.Organizations, r.Days, r.Pending, r.loaded(), cmp.Or(r.LoadAverage, "not known"))
	fmt.Fprintf(w, "Bytes per segment: %.0f in tables, %.0f in indexes.\n\n",
		float64(r.TableBytes)/float64(r.Segments), float64(r.IndexBytes)/float64(r.Segments))
	fmt.Fprintln(w, "| milliseconds | calls | p50 | p99 | max | |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|")
	for _, t := range r.Timings {
		fmt.Fprintf(w, "| %s | %d | %.1f | %.1f | %.1f | %s |\n", t.Name, t.Calls, milliseconds(t.P50), milliseconds(t.P99), milliseconds(t.Max), t.Note)
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (r *Report) loaded() string {
	if r.Load == 0 {
		return "loaded before"
	}
	return fmt.Sprintf("loaded in %s", r.Load.Round(time.Second))
}

// loadAverage is that of the last minute.
func loadAverage() string {
	all, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	minute, _, _ := strings.Cut(string(all), " ")
	return minute
}
