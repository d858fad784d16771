// SPDX-License-Identifier: AGPL-3.0-only

// Package verify reads segments from the bucket and compares them with themselves and with the index: footers with rows, counts, hashes
// and the order of rows, the token filter with the bodies, and all of these with what the index says.
//
// It takes live segments as the index has them, all or a sample, and may run beside the services. Nothing is changed, except that with
// Options.Mark somebody notes which files are missing. Files that no segment has are not looked for: `lakerunner janitor inspect` does that.
package verify

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/pkg/segfile"
)

// Index is what verifying needs of the index.
type Index interface {
	Lookup(ctx context.Context, query index.Query) (index.Answer, error)
	DueSegments(ctx context.Context, query index.DueQuery) ([]lake.Segment, error)
	RollupWindow(ctx context.Context, org lake.Organization, signal lake.Signal, window lake.Window) (index.RollupState, error)
	Window(ctx context.Context, org lake.Organization, signal lake.Signal, window lake.Window) (index.WindowState, error)
	CompactionDebt(ctx context.Context, org lake.Organization) ([]index.Debt, error)
}

// Options say what to verify.
type Options struct {
	Index   Index
	Objects objects.Store
	// Organization; empty: all.
	Organization lake.Organization
	// Start and End bound event time; zero: all of it.
	Start, End time.Time
	// Sample is the share of segments that are read, from 0 to 1; zero: all. Seed decides which.
	Sample float64
	Seed   uint64
	// Mark notes which files are missing, and which are there again; nil: nobody does.
	Mark func(ctx context.Context, ids []lake.SegmentID, missing bool) error
	// Scratch is a directory for files under examination. Empty: the system's.
	Scratch string
	// Parallel is how many segments are read at once. Zero: two.
	Parallel int
	// Found is told each problem as it is found; nil: nobody is.
	Found func(Problem)
	// Say is told how far it is; nil: nobody is.
	Say func(format string, args ...any)
}

// Problem is what is wrong with one segment.
type Problem struct {
	Organization lake.Organization `json:"organization"`
	Segment      lake.SegmentID    `json:"segment"`
	Bucket       string            `json:"bucket"`
	Key          string            `json:"key"`
	Missing      bool              `json:"missing,omitempty"`
	Says         string            `json:"says"`
}

// Result says what was verified.
type Result struct {
	Live     int64 `json:"live"`     // segments that the index has
	Verified int64 `json:"verified"` // segments that were read
	Rows     int64 `json:"rows"`
	Bytes    int64 `json:"bytes"`
	Problems int64 `json:"problems"`
	Bad      int64 `json:"bad"` // segments with a problem
}

// Run verifies. The error says only why it could not go on; what is wrong with segments is in the result.
func Run(ctx context.Context, o Options) (Result, error) {
	v := &verification{Options: o}
	if v.Found == nil {
		v.Found = func(Problem) {}
	}
	if v.Say == nil {
		v.Say = func(string, ...any) {}
	}
	if v.End.IsZero() {
		v.End = time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if v.Start.IsZero() {
		v.Start = time.Unix(0, 0).UTC()
	}
	v.Parallel = max(v.Parallel, 1)
	totals, err := v.Index.CompactionDebt(ctx, o.Organization)
	if err != nil {
		return Result{}, err
	}
	for _, t := range totals {
		if err := v.signal(ctx, t.Organization, t.Signal); err != nil {
			return v.result, err
		}
	}
	return v.result, nil
}

type verification struct {
	Options

	mu     sync.Mutex
	result Result
}

// shortest is the range that is not halved any more when it holds too many segments for one answer.
const shortest = time.Hour

func (v *verification) signal(ctx context.Context, org lake.Organization, signal lake.Signal) error {
	v.Say("%s, %s", org, signal)
	if err := v.span(ctx, index.Query{Organization: org, Signal: signal, Start: v.Start, End: v.End}, v.Start); err != nil {
		return err
	}
	for _, resolution := range index.Resolutions() {
		if err := v.rollups(ctx, org, signal, resolution); err != nil {
			return err
		}
	}
	return nil
}

const (
	// longest is how long windows are at most.
	longest = 24 * time.Hour
	page    = 1000
)

// rollups verifies the segments of a resolution, whether or not they are current.
func (v *verification) rollups(ctx context.Context, org lake.Organization, signal lake.Signal, resolution time.Duration) error {
	q := index.DueQuery{
		Organization: org, Signal: signal, Resolution: resolution, Before: v.End.Add(longest), Limit: page,
		After: &lake.Segment{Window: lake.Window{Start: v.Start.Add(-longest)}},
	}
	for {
		found, err := v.Index.DueSegments(ctx, q)
		if err != nil {
			return err
		}
		var own []lake.Segment
		for _, s := range found {
			if s.Window.Start.Before(v.End) && v.Start.Before(s.Window.End()) {
				own = append(own, s)
			}
		}
		if err := v.segments(ctx, own); err != nil || len(found) < page {
			return err
		}
		q.After = &found[len(found)-1]
	}
}

// span verifies the segments of a range. Those with rows before from are another span's.
func (v *verification) span(ctx context.Context, q index.Query, from time.Time) error {
	answer, err := v.Index.Lookup(ctx, q)
	if errors.Is(err, fault.Exhausted) && q.End.Sub(q.Start) > shortest {
		first, second := q, q
		middle := q.Start.Add(q.End.Sub(q.Start) / 2)
		first.End, second.Start = middle, middle
		if err := v.span(ctx, first, from); err != nil {
			return err
		}
		return v.span(ctx, second, middle)
	}
	if err != nil {
		return err
	}
	var own []lake.Segment
	for _, s := range answer.Segments {
		if from.Equal(v.Start) || !s.FirstTime.Before(from) {
			own = append(own, s)
		}
	}
	return v.segments(ctx, own)
}

func (v *verification) segments(ctx context.Context, segments []lake.Segment) error {
	v.result.Live += int64(len(segments))
	windows := &windows{index: v.Index, known: map[window]map[lake.SegmentID]lake.Segment{}}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(v.Parallel)
	for _, s := range segments {
		if !v.chosen(s) {
			continue
		}
		group.Go(func() error { return v.segment(ctx, s, windows) })
	}
	return group.Wait()
}

// chosen draws lots, the same ones for the same seed.
func (v *verification) chosen(s lake.Segment) bool {
	if v.Sample <= 0 || v.Sample >= 1 {
		return true
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%d/%s/%s", v.Seed, s.Bucket, s.Key)
	return float64(h.Sum64()>>11)/(1<<53) < v.Sample
}

func (v *verification) segment(ctx context.Context, s lake.Segment, windows *windows) error {
	listed, live, err := windows.segment(ctx, s)
	if err != nil || !live { // compacted meanwhile
		return err
	}
	problems, content, err := v.examine(ctx, listed)
	missing := errors.Is(err, fault.NotFound)
	switch {
	case missing:
		// A compaction may have replaced it since, and the sweep taken it away.
		if live, err = windows.stillLive(ctx, s); err != nil || !live {
			return err
		}
		problems = []string{"the file, or its sidecar, is missing"}
	case err != nil && (ctx.Err() != nil || passes(err)):
		return err
	case err != nil:
		problems = []string{fmt.Sprintf("cannot be read: %v", err)}
	}
	v.account(s, content, problems, missing)
	if v.Mark == nil {
		return nil
	}
	return v.Mark(ctx, []lake.SegmentID{s.ID}, missing)
}

// passes reports whether an error is not the segment's.
func passes(err error) bool {
	return errors.Is(err, fault.Unavailable) || errors.Is(err, fault.Timeout) || errors.Is(err, fault.Denied) || errors.Is(err, fault.Canceled)
}

func (v *verification) account(s lake.Segment, r report, problems []string, missing bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.result.Verified++
	v.result.Rows += r.Rows
	v.result.Bytes += r.Bytes + r.SidecarBytes
	v.result.Problems += int64(len(problems))
	if len(problems) > 0 {
		v.result.Bad++
	}
	for _, says := range problems {
		v.Found(Problem{Organization: s.Organization, Segment: s.ID, Bucket: s.Bucket, Key: s.Key, Missing: missing, Says: says})
	}
	if v.result.Verified%100 == 0 {
		v.Say("%d segments verified, %d problems", v.result.Verified, v.result.Problems)
	}
}

// examine reads a segment and lists what does not fit.
func (v *verification) examine(ctx context.Context, s lake.Segment) (problems []string, content report, err error) {
	bucket, err := v.Objects.Bucket(ctx, s.Bucket)
	if err != nil {
		return nil, content, err
	}
	sidecar, err := read(ctx, bucket, lake.SidecarKey(s.Key))
	if err != nil {
		return nil, content, err
	}
	file, size, err := v.fetch(ctx, bucket, s.Key)
	if err != nil {
		return nil, content, err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	if content, err = readFile(ctx, s, file, size, sidecar); err != nil {
		return nil, content, err
	}
	return append(slices.Clone(content.problems), compare(s, content)...), content, nil
}

// readFile reads all of a segment, by the format that segments of its kind have.
func readFile(ctx context.Context, s lake.Segment, file io.ReaderAt, size int64, sidecar []byte) (report, error) {
	if s.Signal == lake.SignalMetrics || s.Resolution > 0 {
		read, err := metricfile.Verify(ctx, file, size, sidecar)
		if err != nil {
			return report{}, err
		}
		return metricReport(read), nil
	}
	read, err := segfile.Verify(ctx, file, size, sidecar)
	if err != nil {
		return report{}, err
	}
	return logReport(read), nil
}

func read(ctx context.Context, bucket objects.Bucket, key string) ([]byte, error) {
	body, _, err := bucket.Get(ctx, key, "")
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(body)
	return content, errors.Join(err, body.Close())
}

func (v *verification) fetch(ctx context.Context, bucket objects.Bucket, key string) (file *os.File, size int64, err error) {
	body, _, err := bucket.Get(ctx, key, "")
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	if file, err = os.CreateTemp(v.Scratch, "verify-*.parquet"); err != nil {
		return nil, 0, fault.Wrap(fault.Unavailable, fmt.Errorf("scratch directory: %w", err))
	}
	if size, err = io.Copy(file, body); err != nil {
		return nil, 0, errors.Join(err, file.Close(), os.Remove(file.Name()))
	}
	return file, size, nil
}
