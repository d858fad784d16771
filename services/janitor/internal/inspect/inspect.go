// SPDX-License-Identifier: AGPL-3.0-only

// Package inspect compares our own files with the index, a day of segments at a time: files that nobody has are deleted, live segments
// whose file or sidecar is gone are marked as missing, and unmarked when they are back.
//
// Invariants:
//
//	N1. A file is an orphan only when no segment has it, live or removed, by an index read after the listing and after its lease was seen not
//	    to be alive; and when it was written longer than the grace ago by the database's clock.
//	N2. A file of a lease that the index does not know is kept if a commit record in the bucket names the lease: the index is then older
//	    than the bucket (a restored database), and must be brought up to it first.
//	N3. A segment is marked as missing only when the store itself says of its file, or its sidecar, that it is not there.
//	N4. No day is left out for ever: each run looks at the newest days, and at one other, which is another each time.
package inspect

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/lakerunner/lakerunner/pkg/archive"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// Index is what inspection needs of the index.
type Index interface {
	Now(ctx context.Context) (time.Time, error)
	DueSegments(ctx context.Context, query index.DueQuery) ([]lake.Segment, error)
	SegmentsOfDay(ctx context.Context, org lake.Organization, signal lake.Signal, day time.Time, after lake.SegmentID, limit int) ([]index.KnownFile, error)
	LeaseStates(ctx context.Context, ids []lake.LeaseID) (map[lake.LeaseID]string, error)
	MarkMissing(ctx context.Context, ids []lake.SegmentID, missing bool) error
}

// Buckets returns the names of the buckets that an organization's own files can be in.
type Buckets func(org lake.Organization) []string

// Deps are what inspection works on.
type Deps struct {
	Index   Index
	Objects objects.Store
	Buckets Buckets
	Log     *slog.Logger
	// Grace is how old a file must be to be taken for an orphan.
	Grace time.Duration
	// Turn is how often the duty runs: for so long it is an older day's turn. Zero: 1 hour.
	Turn       time.Duration
	Checkpoint func(name string)
}

const (
	day = 24 * time.Hour
	// newest is how many days are looked at in each run, today's among them.
	newest = 2
	page   = 1000
	// MaxMissing bounds how many missing segments are known at a time.
	MaxMissing = 10_000
)

var signals = []lake.Signal{lake.SignalLogs, lake.SignalMetrics, lake.SignalSpans}

// Inspector inspects.
type Inspector struct{ deps Deps }

// New returns an inspector.
func New(d Deps) *Inspector {
	d.Grace = cmp.Or(d.Grace, 48*time.Hour)
	d.Turn = cmp.Or(d.Turn, time.Hour)
	return &Inspector{deps: d}
}

// Scope says what to look at.
type Scope struct {
	Organization lake.Organization
	Signals      []lake.Signal // none: all
	// Start and End are days of segments' windows, End exclusive. Both zero: what a run of the duty looks at now.
	Start, End time.Time
	// DryRun reports only: it deletes no orphan and marks no segment.
	DryRun bool
}

// Result counts.
type Result struct {
	Files                   int64
	Orphaned, OrphanedBytes int64
	Missing                 []index.KnownFile // that are missing now
}

// Duty looks at some days of one signal.
func (i *Inspector) Duty(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
	scope := Scope{Organization: lease.Organization}
	for _, task := range lease.Tasks {
		scope.Signals = append(scope.Signals, task.Signal)
	}
	_, err := i.Run(ctx, scope)
	return lake.Edit{}, err
}

// Run looks at a scope.
func (i *Inspector) Run(ctx context.Context, scope Scope) (Result, error) {
	var result Result
	now, err := i.deps.Index.Now(ctx)
	if err != nil {
		return result, err
	}
	if len(scope.Signals) == 0 {
		scope.Signals = signals
	}
	for _, signal := range scope.Signals {
		days, err := i.days(ctx, scope, signal, now)
		if err != nil {
			return result, err
		}
		for _, at := range days {
			c := &comparison{Inspector: i, scope: scope, signal: signal, day: at, now: now}
			if err := c.run(ctx, &result); err != nil {
				return result, err
			}
		}
	}
	return result, nil
}

// maxDays bounds an explicit scope.
const maxDays = 366

func (i *Inspector) days(ctx context.Context, scope Scope, signal lake.Signal, now time.Time) ([]time.Time, error) {
	if !scope.Start.IsZero() {
		return explicitDays(scope)
	}
	oldest, err := i.oldest(ctx, scope.Organization, signal, now)
	return daysOf(now, oldest, i.deps.Turn), err
}

// daysOf are the newest days, and the older one whose turn it is. Segments of tomorrow's windows have their turn tomorrow.
func daysOf(now, oldest time.Time, turn time.Duration) []time.Time {
	today := now.UTC().Truncate(day)
	var days []time.Time
	for n := range newest {
		days = append(days, today.Add(-time.Duration(n)*day))
	}
	older := int64(today.Sub(oldest)/day) + 1 - newest
	if oldest.IsZero() || older <= 0 {
		return days
	}
	nth := scattered(uint64(now.UnixNano()/int64(turn))) % uint64(older)
	return append(days, oldest.Add(time.Duration(nth)*day))
}

// scattered makes neighbouring numbers far apart (it is SplitMix64's finish). Days taken one after the other could fall into step with the
// oldest, which moves on too, and then some would never have their turn.
func scattered(n uint64) uint64 {
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}

func explicitDays(scope Scope) ([]time.Time, error) {
	start, end := scope.Start.UTC().Truncate(day), scope.End
	if end.IsZero() {
		end = start.Add(day)
	}
	if !start.Before(end) || end.Sub(start) > maxDays*day {
		return nil, fault.New(fault.Invalid, "start and end: want 1 to %d days", maxDays)
	}
	var days []time.Time
	for at := start; at.Before(end); at = at.Add(day) {
		days = append(days, at)
	}
	return days, nil
}

// oldest is the first day with a live segment or with a file; zero: there is none.
func (i *Inspector) oldest(ctx context.Context, org lake.Organization, signal lake.Signal, now time.Time) (time.Time, error) {
	var first time.Time
	segments, err := i.deps.Index.DueSegments(ctx, index.DueQuery{Organization: org, Signal: signal, Before: now, Limit: 1})
	if err != nil {
		return first, err
	}
	if len(segments) > 0 {
		first = segments[0].Window.Start.UTC().Truncate(day)
	}
	for _, name := range i.deps.Buckets(org) {
		bucket, err := i.deps.Objects.Bucket(ctx, name)
		if err != nil {
			return first, err
		}
		prefix := folderOf(org, signal)
		for a, err := range bucket.List(ctx, prefix, "") {
			if err != nil {
				return first, err
			}
			if at, ok := dayOf(strings.TrimPrefix(a.Key, prefix)); ok && (first.IsZero() || at.Before(first)) {
				first = at
			}
			break
		}
	}
	return first, nil
}

func folderOf(org lake.Organization, signal lake.Signal) string {
	return lake.Prefix + string(org) + "/" + signal.String() + "/"
}

func dayOf(rest string) (time.Time, bool) {
	name, _, _ := strings.Cut(rest, "/")
	at, err := time.Parse(time.DateOnly, name)
	return at, err == nil
}

// comparison is one day of one signal.
type comparison struct {
	*Inspector
	scope  Scope
	signal lake.Signal
	day    time.Time
	now    time.Time
	files  map[place]objects.Attributes
	known  map[place]bool
	live   []index.KnownFile
}

// place is where a file is.
type place struct{ bucket, key string }

func (c *comparison) run(ctx context.Context, result *Result) error {
	if err := c.list(ctx); err != nil {
		return err
	}
	result.Files += int64(len(c.files))
	if err := c.ask(ctx); err != nil {
		return err
	}
	c.deps.Checkpoint("inspect-compared")
	if err := c.orphans(ctx, result); err != nil {
		return err
	}
	return c.missing(ctx, result)
}

// list comes before ask: a file that was listed and committed by then is known.
func (c *comparison) list(ctx context.Context) error {
	c.files = map[place]objects.Attributes{}
	prefix := folderOf(c.scope.Organization, c.signal) + c.day.Format(time.DateOnly) + "/"
	for _, name := range c.deps.Buckets(c.scope.Organization) {
		bucket, err := c.deps.Objects.Bucket(ctx, name)
		if err != nil {
			return err
		}
		for a, err := range bucket.List(ctx, prefix, "") {
			if err != nil {
				return err
			}
			c.files[place{name, a.Key}] = a
		}
	}
	return nil
}

func (c *comparison) ask(ctx context.Context) error {
	c.known, c.live = map[place]bool{}, nil
	var after lake.SegmentID
	for {
		files, err := c.deps.Index.SegmentsOfDay(ctx, c.scope.Organization, c.signal, c.day, after, page)
		if err != nil {
			return err
		}
		for _, f := range files {
			after = max(after, f.ID)
			c.known[place{f.Bucket, f.Key}] = true
			c.known[place{f.Bucket, lake.SidecarKey(f.Key)}] = true
			if !f.Removed {
				c.live = append(c.live, f)
			}
		}
		if len(files) < page {
			return nil
		}
	}
}

func (c *comparison) orphans(ctx context.Context, result *Result) error {
	candidates := map[lake.LeaseID][]place{}
	for at, a := range c.files {
		if !c.known[at] && c.now.Sub(a.LastModified) > c.deps.Grace {
			lease := leaseOf(at.key)
			candidates[lease] = append(candidates[lease], at)
		}
	}
	dead, err := c.dead(ctx, candidates)
	if err != nil {
		return err
	}
	if len(dead) > 0 { // one of them may have ended by committing its files since the index was read
		if err := c.ask(ctx); err != nil {
			return err
		}
	}
	doomed := map[string][]string{}
	for _, lease := range dead {
		for _, at := range candidates[lease] {
			if c.known[at] {
				continue
			}
			result.Orphaned++
			result.OrphanedBytes += c.files[at].Size
			doomed[at.bucket] = append(doomed[at.bucket], at.key)
		}
	}
	if c.scope.DryRun {
		return nil
	}
	for name, keys := range doomed {
		bucket, err := c.deps.Objects.Bucket(ctx, name)
		if err == nil {
			err = bucket.Delete(ctx, keys...)
		}
		if err != nil {
			return err
		}
	}
	c.deps.Checkpoint("inspect-orphans-deleted")
	return nil
}

// leaseOf is the folder that a file of a segment is in: db/{organization}/{signal}/{day}/{lease}/{file}.
func leaseOf(key string) lake.LeaseID {
	parts := strings.Split(key, "/")
	if len(parts) < 6 {
		return ""
	}
	return lake.LeaseID(parts[4])
}

// dead returns the leases that can add none of their files any more: those that ended, and those that nobody knows of.
func (c *comparison) dead(ctx context.Context, candidates map[lake.LeaseID][]place) ([]lake.LeaseID, error) {
	var ids []lake.LeaseID
	for id := range candidates {
		if id != "" {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	var dead, unknown []lake.LeaseID
	for batch := range slices.Chunk(ids, 1000) {
		states, err := c.deps.Index.LeaseStates(ctx, batch)
		if err != nil {
			return nil, err
		}
		for _, id := range batch {
			switch states[id] {
			case "":
				unknown = append(unknown, id)
			case "live":
			default:
				dead = append(dead, id)
			}
		}
	}
	recorded, err := c.recorded(ctx, candidates, unknown)
	if err != nil {
		return nil, err
	}
	for _, id := range unknown {
		if recorded[id] {
			c.deps.Log.ErrorContext(ctx, "the bucket has a commit that the index does not: run lakerunner rebuild-index", "organization", c.scope.Organization, "lease", id)
			continue
		}
		dead = append(dead, id)
	}
	return dead, nil
}

// recorded returns those of the leases that commit records in the bucket name.
func (c *comparison) recorded(ctx context.Context, candidates map[lake.LeaseID][]place, ids []lake.LeaseID) (map[lake.LeaseID]bool, error) {
	recorded := map[lake.LeaseID]bool{}
	if len(ids) == 0 {
		return recorded, nil
	}
	since := c.now
	for _, id := range ids {
		for _, at := range candidates[id] {
			if written := c.files[at].LastModified; written.Before(since) {
				since = written
			}
		}
	}
	for _, name := range c.deps.Buckets(c.scope.Organization) {
		bucket, err := c.deps.Objects.Bucket(ctx, name)
		if err != nil {
			return nil, err
		}
		for file, err := range archive.RecordFiles(ctx, bucket, c.scope.Organization, since.Add(-day)) {
			if err != nil {
				return nil, err
			}
			err = archive.ReadLines(ctx, bucket, file.Key, func(line []byte) error {
				for _, id := range ids {
					if bytes.Contains(line, []byte(id)) {
						recorded[id] = true
					}
				}
				return nil
			})
			if err != nil && !errors.Is(err, fault.NotFound) {
				return nil, err
			}
		}
	}
	return recorded, nil
}

// missing marks live segments whose files are gone, and unmarks those that are back.
func (c *comparison) missing(ctx context.Context, result *Result) error {
	var gone, back []lake.SegmentID
	for _, f := range c.live {
		lacking, err := c.lacking(ctx, f)
		if err != nil {
			return err
		}
		switch {
		case lacking:
			gone = append(gone, f.ID)
			result.Missing = append(result.Missing, f)
		case f.Missing:
			back = append(back, f.ID)
		}
	}
	if c.scope.DryRun {
		return nil
	}
	if err := c.deps.Index.MarkMissing(ctx, gone, true); err != nil {
		return err
	}
	return c.deps.Index.MarkMissing(ctx, back, false)
}

// lacking asks the store itself about files that were not listed: they may have been written since.
func (c *comparison) lacking(ctx context.Context, f index.KnownFile) (bool, error) {
	for _, key := range []string{f.Key, lake.SidecarKey(f.Key)} {
		if _, seen := c.files[place{f.Bucket, key}]; seen {
			continue
		}
		bucket, err := c.deps.Objects.Bucket(ctx, f.Bucket)
		if err != nil {
			return false, err
		}
		_, err = bucket.Head(ctx, key)
		if errors.Is(err, fault.NotFound) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}
