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
)

// ingestFigures are what ingest of the corpus cost.
type ingestFigures struct {
	Rows, Objects, Segments int64
	CPU, Wall               time.Duration
	PeakRSS                 int64 // bytes
	Stored                  int64 // bytes of segments and sidecars
	Sidecars                int64 // bytes of sidecars alone
	OTLP                    int64 // bytes of the corpus, uncompressed
	DecodeCPU               time.Duration
}

func (f ingestFigures) rowsPerCPU() float64   { return float64(f.Rows) / f.CPU.Seconds() }
func (f ingestFigures) decodePerCPU() float64 { return float64(f.Rows) / f.DecodeCPU.Seconds() }
func (f ingestFigures) bytesPerOTLP() float64 { return float64(f.Stored) / float64(f.OTLP) }
func (f ingestFigures) sidecarShare() float64 {
	return float64(f.Sidecars) / float64(f.Stored-f.Sidecars)
}
func (f ingestFigures) megabytesPeak() float64 { return float64(f.PeakRSS) / 1e6 }

// queryFigures are what one query took.
type queryFigures struct {
	query query
	// first is with an empty segment cache, cold after a restart with the page cache dropped, warm the median of five.
	first, cold, warm    time.Duration
	floorCold, floorWarm time.Duration
	problem              error // the answer was wrong
}

// result is a whole run.
type result struct {
	command      string
	at           time.Time
	lines        int64
	ingest       ingestFigures
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
	fmt.Fprintf(out, "Corpus: %d log lines, %.0f MB of OTLP. Command: `%s`. Date: %s. Machine: %s; load average at the start: %s.\n\n", r.lines, float64(r.ingest.OTLP)/1e6, r.command, r.at.UTC().Format("2006-01-02"), machine(), r.load)
	r.writeIngest(out)
	fmt.Fprintln(out)
	r.writeQueries(out)
	r.writeNotes(out)
}

func (r *result) writeIngest(out io.Writer) {
	f := r.ingest
	writeRows(out, [][]string{
		{"ingest", "measured", "asked at level 0", "aim", "floor"},
		{"rows per CPU-second", fmt.Sprintf("%.0f", f.rowsPerCPU()), "90,000", "160,000 with compaction", fmt.Sprintf("%.0f (gunzip + OTLP decoding alone)", f.decodePerCPU())},
		{"bytes at rest per byte of OTLP", fmt.Sprintf("%.3f", f.bytesPerOTLP()), "0.24", "0.13 compacted", ""},
		{"sidecars, share of segment bytes", fmt.Sprintf("%.1f %%", 100*f.sidecarShare()), "15 %", "15 %", ""},
		{"peak RSS of the ingest process, MB", fmt.Sprintf("%.0f", f.megabytesPeak()), "1,074", "400", ""},
		{"wall clock, s", fmt.Sprintf("%.1f", f.Wall.Seconds()), "", "", ""},
		{"segments", fmt.Sprintf("%d of %d objects", f.Segments, f.Objects), "", "", ""},
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
