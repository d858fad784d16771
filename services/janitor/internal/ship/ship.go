// SPDX-License-Identifier: AGPL-3.0-only

// Package ship brings what the index says into the bucket: commit records as they come, and a snapshot now and then, so that the index
// can be made again from the bucket alone (see pkg/archive for the layout, and docs/recovery.md for what is lost when).
//
// Invariants:
//
//	S1. A record leaves the outbox only after the file that holds it was written. Written twice is read as once.
//	S2. A snapshot counts only when its manifest was written, after all its parts, and after the records of all that the parts may show
//	    a half of: a commit may have been made between two of them.
//	S3. What is trimmed is not needed by any of the snapshots that stay, of which there are two at least, and is older than the grace.
//
// It does not read records back: `lakerunner rebuild-index` does.
package ship

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/lakerunner/lakerunner/pkg/archive"
	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// Index is what shipping needs of the index.
type Index interface {
	Now(ctx context.Context) (time.Time, error)
	Records(ctx context.Context, org lake.Organization, limit int) ([]index.Record, error)
	RecordsShipped(ctx context.Context, ids []int64) error
	Snapshot(ctx context.Context, org lake.Organization, write func(ctx context.Context, table string, rows []byte) error) (index.SnapshotInfo, error)
	SnapshotWritten(ctx context.Context, org lake.Organization, startedAt time.Time) error
	Receipts(ctx context.Context, query index.ReceiptQuery) ([]lake.Receipt, string, error)
}

// Deps are what shipping works on.
type Deps struct {
	Index   Index
	Objects objects.Store
	Config  config.Source
	// Every is how long the duty waits for its next run: what a lost database loses. Zero: a minute.
	Every time.Duration
	// SnapshotEvery is how old the newest snapshot may become. Zero: a day.
	SnapshotEvery time.Duration
	// Grace is how long old records and snapshots stay. Zero: two days.
	Grace time.Duration
}

// Shipper brings records and snapshots into the bucket.
type Shipper struct {
	deps Deps
	// newest has the start of the newest snapshot that was seen, by organization: so that the bucket is not asked in each run.
	newest sync.Map
}

// New returns a shipper.
func New(d Deps) *Shipper {
	d.Every = cmp.Or(d.Every, time.Minute)
	d.SnapshotEvery = cmp.Or(d.SnapshotEvery, 24*time.Hour)
	d.Grace = cmp.Or(d.Grace, 48*time.Hour)
	return &Shipper{deps: d}
}

const (
	// recordPage is how many records are read at once, and fileBytes what a file holds of them before compression, or a little more.
	recordPage = 500
	fileBytes  = 8 << 20
	// keptSnapshots stay however old they are.
	keptSnapshots = 2
)

// Request says what to do besides what is due.
type Request struct {
	Organization lake.Organization
	// Snapshot writes one even if none is due.
	Snapshot bool
	// DryRun counts only.
	DryRun bool
}

// Result says what was done.
type Result struct {
	Records      int64
	SnapshotKey  string // of the manifest; empty: none was written
	SnapshotRows int64
}

// Duty ships what an organization's outbox holds, and writes a snapshot when one is due.
func (s *Shipper) Duty(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
	edit := lake.Edit{Next: []lake.Task{{Kind: lake.TaskShip, Organization: lease.Organization, Delay: s.deps.Every}}}
	if _, err := s.Records(ctx, lease.Organization); err != nil {
		return edit, err
	}
	due, err := s.due(ctx, lease.Organization)
	if err != nil || !due {
		return edit, err
	}
	if _, _, err := s.Snapshot(ctx, lease.Organization); err != nil {
		return edit, err
	}
	return edit, s.Trim(ctx, lease.Organization)
}

// Run does what a request asks for.
func (s *Shipper) Run(ctx context.Context, r Request) (Result, error) {
	if r.DryRun {
		records, err := s.deps.Index.Records(ctx, r.Organization, maxCounted)
		telling, _ := sort(records)
		return Result{Records: int64(len(telling))}, err
	}
	var result Result
	var err error
	if result.Records, err = s.Records(ctx, r.Organization); err != nil || !r.Snapshot {
		return result, err
	}
	key, rows, err := s.Snapshot(ctx, r.Organization)
	result.SnapshotKey, result.SnapshotRows = key, rows
	if err != nil {
		return result, err
	}
	return result, s.Trim(ctx, r.Organization)
}

// maxCounted is how many records a dry run reads at most.
const maxCounted = 10_000

// Records brings an organization's commit records into the bucket and says how many.
func (s *Shipper) Records(ctx context.Context, org lake.Organization) (int64, error) {
	var shipped int64
	for {
		records, err := s.deps.Index.Records(ctx, org, recordPage)
		if err != nil || len(records) == 0 {
			return shipped, err
		}
		n, err := s.shipPage(ctx, org, records)
		shipped += n
		if err != nil || len(records) < recordPage { // what has come meanwhile is the next run's
			return shipped, err
		}
	}
}

func (s *Shipper) shipPage(ctx context.Context, org lake.Organization, records []index.Record) (shipped int64, err error) {
	telling, idle := sort(records)
	if len(idle) > 0 {
		if err := s.deps.Index.RecordsShipped(ctx, idle); err != nil {
			return 0, err
		}
	}
	if len(telling) == 0 {
		return 0, nil
	}
	home, err := s.home(ctx, org)
	if err != nil {
		return 0, err
	}
	files, err := s.files(telling, home)
	if err != nil {
		return 0, err
	}
	for _, f := range files {
		if err := s.ship(ctx, org, f); err != nil {
			return shipped, err
		}
		shipped += int64(len(f.ids))
	}
	return shipped, nil
}

// sort tells records that say something from those that say only that a lease ended: so do those of duties that found nothing to do,
// this one's own among them, which would otherwise keep shipping one another for ever. Files of such a lease are orphans, whether it is
// known or not.
func sort(records []index.Record) (telling []index.Record, idle []int64) {
	for _, r := range records {
		if saysNothing(r) {
			idle = append(idle, r.ID)
			continue
		}
		telling = append(telling, r)
	}
	return telling, idle
}

func saysNothing(r index.Record) bool {
	for table, rows := range r.Rows {
		if string(rows) == "null" {
			delete(r.Rows, table) // no reader misses it
		}
	}
	_, leases := r.Rows["leases"]
	return len(r.Rows) == 0 || len(r.Rows) == 1 && leases
}

// file is a file of records to be written.
type file struct {
	bucket string
	batch  archive.Batch
	ids    []int64
}

// files sorts records by the bucket that they go to, and cuts them where a file is large enough.
func (s *Shipper) files(records []index.Record, home string) ([]*file, error) {
	var files []*file
	open := map[string]*file{}
	for i := range records {
		r := &records[i]
		line, err := json.Marshal(r)
		if err != nil {
			return nil, err
		}
		name := s.bucketOf(r, home)
		f := open[name]
		if f == nil || len(f.batch.Lines) > fileBytes {
			f = &file{bucket: name}
			open[name] = f
			files = append(files, f)
		}
		f.batch.Lines = append(append(f.batch.Lines, line...), '\n')
		f.batch.Last = max(f.batch.Last, r.ID)
		if r.CommittedAt.After(f.batch.At) {
			f.batch.At = r.CommittedAt
		}
		f.ids = append(f.ids, r.ID)
	}
	return files, nil
}

func (s *Shipper) ship(ctx context.Context, org lake.Organization, f *file) error {
	bucket, err := s.deps.Objects.Bucket(ctx, f.bucket)
	if err != nil {
		return err
	}
	if _, err := archive.WriteRecords(ctx, bucket, org, f.batch); err != nil {
		return err
	}
	return s.deps.Index.RecordsShipped(ctx, f.ids)
}

// home is the bucket of an organization's snapshots, and of records that speak of no bucket: that of its first storage profile, or else
// the one that its newest object came from.
func (s *Shipper) home(ctx context.Context, org lake.Organization) (string, error) {
	snapshot := s.deps.Config.Current()
	for _, p := range snapshot.Profiles() {
		if p.Organization == org {
			return p.Bucket(), nil
		}
	}
	receipts, _, err := s.deps.Index.Receipts(ctx, index.ReceiptQuery{Organization: org, PageSize: 1})
	if err != nil {
		return "", err
	}
	for _, r := range receipts {
		if _, ok := snapshot.Profile(r.Object.Bucket); ok {
			return r.Object.Bucket, nil
		}
	}
	return "", fault.New(fault.NotFound, "no storage profile is of organization %s: there is no bucket for its commit records", org)
}

// Snapshot writes a snapshot of an organization's part of the index.
func (s *Shipper) Snapshot(ctx context.Context, org lake.Organization) (key string, rows int64, err error) {
	name, err := s.home(ctx, org)
	if err != nil {
		return "", 0, err
	}
	bucket, err := s.deps.Objects.Bucket(ctx, name)
	if err != nil {
		return "", 0, err
	}
	started, err := s.deps.Index.Now(ctx)
	if err != nil {
		return "", 0, err
	}
	writer := archive.NewSnapshot(bucket, org, snapshotID(started))
	if _, err := s.deps.Index.Snapshot(ctx, org, writer.Part); err != nil {
		return "", 0, fmt.Errorf("snapshot of %s: %w", org, err)
	}
	if _, err := s.Records(ctx, org); err != nil {
		return "", 0, err
	}
	finished, err := s.deps.Index.Now(ctx)
	if err != nil {
		return "", 0, err
	}
	key, manifest, err := writer.Finish(ctx, started, finished)
	if err != nil {
		return "", 0, err
	}
	s.newest.Store(org, started)
	return key, manifest.Rows, s.deps.Index.SnapshotWritten(ctx, org, started)
}

// snapshotID sorts by time, and is nobody else's.
func snapshotID(started time.Time) string { return started.UTC().Format("20060102T150405.000000Z") }

// due reports whether the newest snapshot is too old. An organization without objects needs none.
func (s *Shipper) due(ctx context.Context, org lake.Organization) (bool, error) {
	now, err := s.deps.Index.Now(ctx)
	if err != nil {
		return false, err
	}
	if seen, ok := s.newest.Load(org); ok && now.Sub(seen.(time.Time)) < s.deps.SnapshotEvery {
		return false, nil
	}
	receipts, _, err := s.deps.Index.Receipts(ctx, index.ReceiptQuery{Organization: org, PageSize: 1})
	if err != nil || len(receipts) == 0 {
		return false, err
	}
	snapshots, err := s.snapshots(ctx, org)
	if err != nil {
		return false, err
	}
	complete := completeOf(snapshots)
	if len(complete) == 0 {
		return true, nil
	}
	s.newest.Store(org, complete[0].Manifest.StartedAt)
	return now.Sub(complete[0].Manifest.StartedAt) >= s.deps.SnapshotEvery, nil
}

// snapshots lists those of an organization in all buckets, newest first.
func (s *Shipper) snapshots(ctx context.Context, org lake.Organization) ([]*archive.Snapshot, error) {
	var all []*archive.Snapshot
	err := s.eachBucket(ctx, func(b objects.Bucket) error {
		found, err := archive.Snapshots(ctx, b, org)
		all = append(all, found...)
		return err
	})
	slices.SortStableFunc(all, func(a, b *archive.Snapshot) int { return cmp.Compare(b.ID, a.ID) })
	return all, err
}

func completeOf(snapshots []*archive.Snapshot) []*archive.Snapshot {
	return slices.DeleteFunc(slices.Clone(snapshots), func(s *archive.Snapshot) bool { return s.Manifest == nil })
}

func (s *Shipper) eachBucket(ctx context.Context, f func(objects.Bucket) error) error {
	seen := map[string]bool{}
	for _, p := range s.deps.Config.Current().Profiles() {
		if seen[p.Bucket()] {
			continue
		}
		seen[p.Bucket()] = true
		b, err := s.deps.Objects.Bucket(ctx, p.Bucket())
		if err != nil {
			return err
		}
		if err := f(b); err != nil {
			return err
		}
	}
	return nil
}

// Trim deletes records and snapshots that no snapshot that stays needs.
func (s *Shipper) Trim(ctx context.Context, org lake.Organization) error {
	now, err := s.deps.Index.Now(ctx)
	if err != nil {
		return err
	}
	snapshots, err := s.snapshots(ctx, org)
	if err != nil {
		return err
	}
	stay, leave := sift(snapshots, now.Add(-s.deps.Grace))
	if len(stay) < keptSnapshots {
		return nil
	}
	for _, old := range leave {
		if err := old.Delete(ctx); err != nil {
			return err
		}
	}
	needed := stay[len(stay)-1].Manifest.Since()
	if limit := now.Add(-s.deps.Grace); limit.Before(needed) {
		needed = limit
	}
	return s.eachBucket(ctx, func(b objects.Bucket) error { return trimRecords(ctx, b, org, needed) })
}

// sift tells the complete snapshots that stay from those, complete or not, that go.
func sift(snapshots []*archive.Snapshot, before time.Time) (stay, leave []*archive.Snapshot) {
	complete := completeOf(snapshots)
	for i, s := range complete {
		if i < keptSnapshots || !s.Manifest.StartedAt.Before(before) {
			stay = append(stay, s)
			continue
		}
		leave = append(leave, s)
	}
	for _, s := range snapshots {
		// The bucket's clock tells how old one is that nobody finished.
		if s.Manifest == nil && s.LastModified.Before(before) {
			leave = append(leave, s)
		}
	}
	return stay, leave
}

func trimRecords(ctx context.Context, b objects.Bucket, org lake.Organization, before time.Time) error {
	var keys []string
	flush := func() error {
		err := b.Delete(ctx, keys...)
		keys = keys[:0]
		return err
	}
	for f, err := range archive.OldRecordFiles(ctx, b, org, before) {
		if err != nil {
			return err
		}
		if keys = append(keys, f.Key); len(keys) == 1000 {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if len(keys) == 0 {
		return nil
	}
	return flush()
}

// bucketOf is the bucket that a record goes to: the one that its files or objects are in, where that is one of ours.
func (s *Shipper) bucketOf(r *index.Record, home string) string {
	snapshot := s.deps.Config.Current()
	for _, name := range r.Buckets() {
		if _, ok := snapshot.Profile(name); ok {
			return name
		}
	}
	return home
}
