// SPDX-License-Identifier: AGPL-3.0-only

package bench

import (
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// ingestFigures are what ingest of the corpus cost.
type ingestFigures struct {
	Rows, Objects int64
	CPU, Wall     time.Duration
	PeakRSS       int64         // bytes
	Stored        storedFigures // level 0
	OTLP          int64         // bytes of the corpus, uncompressed
	DecodeCPU     time.Duration
}

func (f ingestFigures) perCPU(units int64) float64 { return float64(units) / f.CPU.Seconds() }
func (f ingestFigures) decodePerCPU(units int64) float64 {
	return float64(units) / f.DecodeCPU.Seconds()
}

func (f storedFigures) sidecarShare() float64 { return float64(f.Sidecars) / float64(f.Bytes) }
func (f storedFigures) per(otlp int64) float64 {
	return float64(f.Bytes+f.Sidecars) / float64(otlp)
}

// perCPU is that of ingest and compaction together.
func (r *result) perCPU() float64 {
	return float64(r.truth.units()) / (r.ingest.CPU + r.compaction.CPU).Seconds()
}

// queryFigures are what one query took.
type queryFigures struct {
	query query
	// first is with an empty segment cache, cold after a restart with the page cache dropped, warm the median of five.
	first, cold, warm    time.Duration
	floorCold, floorWarm time.Duration
	engine               time.Duration // of Prometheus, over samples in memory; of metrics alone
	peakRSS              int64         // bytes, of frontend and worker in one process
	problem              error         // the answer was wrong
}

// result is a whole run.
type result struct {
	command      string
	at           time.Time
	truth        *truth
	ingest       ingestFigures
	compaction   compactionFigures
	queries      []queryFigures
	cacheDropped bool
	load         string // load average before the run: on a busy machine wall-clock times say little
}

func median(times []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[len(sorted)/2]
}

// failures lists the queries whose answers were wrong.
func (r *result) failures() []string {
	var out []string
	for _, q := range r.queries {
		if q.problem != nil {
			out = append(out, q.query.name+": "+q.problem.Error())
		}
	}
	return out
}

// write prints the run as Markdown, whose tables are readable as plain text too.
func (r *result) write(out io.Writer) {
	fmt.Fprintf(out, "Corpus: %s, %.0f MB of OTLP. Command: `%s`. Date: %s. Machine: %s; load average at the start: %s.\n\n", r.truth.size(), float64(r.ingest.OTLP)/1e6, r.command, r.at.UTC().Format("2006-01-02"), machine(), r.load)
	if r.truth.signal() == lake.SignalMetrics {
		r.writeMetrics(out)
	} else {
		r.writeIngest(out)
		fmt.Fprintln(out)
		r.writeQueries(out)
	}
	r.writeNotes(out)
}

func (r *result) writeIngest(out io.Writer) {
	f, c := r.ingest, r.compaction
	writeRows(out, [][]string{
		{"ingest and compaction", "level 0", "compacted, all in", "asked", "aim", "floor"},
		{"rows per CPU-second", fmt.Sprintf("%.0f", f.perCPU(f.Rows)), fmt.Sprintf("%.0f", r.perCPU()), "70,000", "160,000", fmt.Sprintf("%.0f (gunzip + OTLP decoding alone)", f.decodePerCPU(f.Rows))},
		{"rows per CPU-second of compaction alone", "", fmt.Sprintf("%.0f", float64(f.Rows)/c.CPU.Seconds()), "", "", ""},
		{"bytes at rest per byte of OTLP", fmt.Sprintf("%.3f", f.Stored.per(f.OTLP)), fmt.Sprintf("%.3f", c.After.per(f.OTLP)), "0.18", "0.13", ""},
		{"sidecars, share of segment bytes", fmt.Sprintf("%.1f %%", 100*f.Stored.sidecarShare()), fmt.Sprintf("%.1f %%", 100*c.After.sidecarShare()), "15 %", "15 %", ""},
		{"peak RSS of the process, MB", megabytes(f.PeakRSS), megabytes(c.PeakRSS), "1,074", "400", ""},
		{"wall clock, s", fmt.Sprintf("%.1f", f.Wall.Seconds()), fmt.Sprintf("%.1f", (f.Wall + c.Wall).Seconds()), "", "", ""},
		{"segments", fmt.Sprintf("%d of %d objects", f.Stored.Segments, f.Objects), fmt.Sprint(c.After.Segments), "", "", ""},
	})
}

func (r *result) writeQueries(out io.Writer) {
	rows := [][]string{{"query, seconds", "empty cache", "cold", "aim", "warm", "aim", "DuckDB alone, cold / warm", "answer"}}
	for _, q := range r.queries {
		state := "right"
		if q.problem != nil {
			state = "WRONG"
		}
		rows = append(rows, []string{
			q.query.name + " " + q.query.what, seconds(q.first), seconds(q.cold), fmt.Sprint(q.query.cold), seconds(q.warm), fmt.Sprint(q.query.warm),
			seconds(q.floorCold) + " / " + seconds(q.floorWarm), state,
		})
	}
	writeRows(out, rows)
}

func (r *result) writeNotes(out io.Writer) {
	fmt.Fprint(out, "\nEmpty cache: after a restart, no segment on the worker's disk and the page cache dropped. Cold: after a restart with the page cache dropped. Warm: median of five. No result cache exists.\n")
	if !r.cacheDropped {
		fmt.Fprint(out, "The page cache could not be dropped (that needs root), so the cold figures are only those of a restart.\n")
	}
}

// writeRows writes a Markdown table with aligned columns.
func writeRows(out io.Writer, rows [][]string) {
	w := tabwriter.NewWriter(out, 0, 0, 1, ' ', tabwriter.TabIndent)
	for i, row := range rows {
		fmt.Fprintln(w, "| "+strings.Join(row, "\t| ")+"\t|")
		if i == 0 {
			fmt.Fprintln(w, strings.Repeat("|---\t", len(row))+"|")
		}
	}
	_ = w.Flush()
}

func seconds(d time.Duration) string {
	s := d.Seconds()
	if s >= 0.1 {
		return fmt.Sprintf("%.2f", s)
	}
	return fmt.Sprintf("%.4f", math.Round(s*1e4)/1e4)
}

func machine() string {
	cpu := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				cpu = strings.Trim(name, " \t:\n")
				break
			}
		}
	}
	return fmt.Sprintf("%d cores (%s), %s/%s", runtime.NumCPU(), cpu, runtime.GOOS, runtime.GOARCH)
}

// loadAverage is how busy the machine was, by the kernel's count of one minute; empty where that is not known.
func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	average, _, _ := strings.Cut(string(b), " ")
	return average
}
