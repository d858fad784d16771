// SPDX-License-Identifier: AGPL-3.0-only

// Package rebuild makes the index again from the bucket alone: from the newest complete snapshot of each organization, and the commit
// records since.
//
// It works into an empty database as into an older one that was restored from a backup: what is there stays, and what the bucket knows
// besides is added. It may be run again at any time, and goes on where it was cut off by doing all of it once more.
//
// Invariants:
//
//	B1. A segment is live exactly when a snapshot or record adds it and no record removes it. Files that nobody names are not looked at:
//	    they are left-overs of attempts that never were committed.
//	B2. What the database holds and the bucket does not speak of is not touched.
//	B3. Nothing in the bucket is changed.
//
// The services must not run meanwhile: a worker of before would be committing into an index that is half there.
package rebuild

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/archive"
	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// Index is what rebuilding needs of the index. Nil in Options: only the bucket is read.
type Index interface {
	Lookup(ctx context.Context, query index.Query) (index.Answer, error)
	DueSegments(ctx context.Context, query index.DueQuery) ([]lake.Segment, error)
	AdoptSnapshot(ctx context.Context, org lake.Organization, table string, rows []byte) error
	SnapshotWritten(ctx context.Context, org lake.Organization, startedAt time.Time) error
	Adopt(ctx context.Context, org lake.Organization, records []index.Record) (index.AdoptResult, error)
	Known(ctx context.Context, bucket string, objects []lake.Object) ([]bool, error)
	Revisions(ctx context.Context, bucket, key string) ([]lake.Receipt, error)
	Retag(ctx context.Context, receipt lake.ReceiptID, tag string) error
	Receive(ctx context.Context, notices []index.Notice) ([]index.Noticed, error)
}

// Options say what to rebuild, and from what.
type Options struct {
	Index   Index
	Config  config.Source
	Objects objects.Store
	// Organizations to rebuild; empty: all that have files in the buckets of the configuration.
	Organizations []lake.Organization
	// Buckets are those that the lake was moved between: the name that records have, and the one that they are to have.
	Buckets map[string]string
	// DryRun reads everything and changes nothing.
	DryRun bool
	// Reconcile has objects ingested that have no receipt.
	Reconcile bool
	// Say is told how far it is; nil: nobody is.
	Say func(format string, args ...any)
}

// Result says what was found and done for one organization.
type Result struct {
	Organization lake.Organization `json:"organization"`
	Snapshot     string            `json:"snapshot,omitempty"` // empty: there was none
	SnapshotRows int64             `json:"snapshot_rows"`
	RecordFiles  int64             `json:"record_files"`
	Records      int64             `json:"records"`
	// Newest is when the newest record was committed: what came later has to be ingested again.
	Newest   time.Time `json:"newest,omitzero"`
	Segments int64     `json:"segments"`
	Receipts int64     `json:"receipts"`
	Removed  int64     `json:"removed"`
	Deletes  int64     `json:"deletes"`
}

// Run rebuilds and returns an account for each organization.
func Run(ctx context.Context, o Options) ([]Result, error) {
	r := &rebuild{Options: o}
	if r.Say == nil {
		r.Say = func(string, ...any) {}
	}
	if err := r.open(ctx); err != nil {
		return nil, err
	}
	organizations, err := r.organizations(ctx)
	if err != nil {
		return nil, err
	}
	results := make([]Result, 0, len(organizations))
	for _, org := range organizations {
		result, err := r.organization(ctx, org)
		if err != nil {
			return results, fmt.Errorf("organization %s: %w", org, err)
		}
		results = append(results, result)
	}
	return results, nil
}

// adoptBatch is how many records are adopted in one call.
const adoptBatch = 500

type rebuild struct {
	Options
	buckets []objects.Bucket
}

// open opens each bucket of the configuration once.
func (r *rebuild) open(ctx context.Context) error {
	seen := map[string]bool{}
	for _, p := range r.Config.Current().Profiles() {
		if seen[p.Bucket()] {
			continue
		}
		seen[p.Bucket()] = true
		b, err := r.Objects.Bucket(ctx, p.Bucket())
		if err != nil {
			return err
		}
		r.buckets = append(r.buckets, b)
	}
	for from, to := range r.Buckets {
		if !seen[to] {
			return fault.New(fault.Invalid, "bucket %s is to take the place of %s, but no storage profile names it", to, from)
		}
	}
	if len(r.buckets) == 0 {
		return fault.New(fault.Invalid, "the configuration names no bucket: give it with --config, CONFIGDB_URL or S3_BUCKET")
	}
	return nil
}

func (r *rebuild) organizations(ctx context.Context) ([]lake.Organization, error) {
	if len(r.Organizations) > 0 {
		return r.Organizations, nil
	}
	var all []lake.Organization
	for _, b := range r.buckets {
		found, err := archive.Organizations(ctx, b)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

func (r *rebuild) organization(ctx context.Context, org lake.Organization) (Result, error) {
	result := Result{Organization: org}
	since, err := r.snapshot(ctx, org, &result)
	if err != nil {
		return result, err
	}
	return result, r.records(ctx, org, since, &result)
}

// snapshot adopts the newest complete snapshot and returns from when on records are to be read.
func (r *rebuild) snapshot(ctx context.Context, org lake.Organization, result *Result) (since time.Time, err error) {
	var newest *archive.Snapshot
	for _, b := range r.buckets {
		found, err := archive.Snapshots(ctx, b, org)
		if err != nil {
			return since, err
		}
		for _, s := range found {
			if s.Manifest != nil && (newest == nil || s.Manifest.StartedAt.After(newest.Manifest.StartedAt)) {
				newest = s
			}
		}
	}
	if newest == nil {
		r.Say("%s: no snapshot, all records are read", org)
		return since, nil
	}
	result.Snapshot = newest.ID
	r.Say("%s: snapshot of %s with %d rows", org, newest.Manifest.StartedAt.Format(time.RFC3339), newest.Manifest.Rows)
	since = newest.Manifest.Since()
	inSnapshot := map[lake.SegmentID]bool{}
	err = newest.Read(ctx, func(p archive.Part, rows []byte) error {
		result.SnapshotRows += p.Rows
		rows, err := r.moveLines(rows)
		if err != nil || r.DryRun {
			return err
		}
		if err := listed(inSnapshot, p, rows); err != nil {
			return err
		}
		return r.Index.AdoptSnapshot(ctx, org, p.Table, rows)
	})
	if err != nil || r.DryRun {
		return since, err
	}
	if result.Removed, err = r.removeSwept(ctx, org, newest.Manifest, inSnapshot); err != nil {
		return since, err
	}
	return since, r.Index.SnapshotWritten(ctx, org, newest.Manifest.StartedAt)
}

// place is a file of records in a bucket.
type place struct {
	bucket objects.Bucket
	file   archive.File
}

// records adopts all records since a time, in the order in which they were made.
func (r *rebuild) records(ctx context.Context, org lake.Organization, since time.Time, result *Result) error {
	places, err := r.recordFiles(ctx, org, since)
	if err != nil {
		return err
	}
	var batch []index.Record
	adopt := func() error {
		if len(batch) == 0 || r.DryRun {
			batch = batch[:0]
			return nil
		}
		adopted, err := r.Index.Adopt(ctx, org, batch)
		batch = batch[:0]
		result.Segments += adopted.Segments
		result.Receipts += adopted.Receipts
		result.Removed += adopted.Removed
		result.Deletes += adopted.Deletes
		return err
	}
	for n, p := range places {
		result.RecordFiles++
		err := archive.ReadLines(ctx, p.bucket, p.file.Key, func(line []byte) error {
			record, err := r.record(line)
			if err != nil {
				return err
			}
			result.Records++
			if record.CommittedAt.After(result.Newest) {
				result.Newest = record.CommittedAt
			}
			if batch = append(batch, record); len(batch) < adoptBatch {
				return nil
			}
			return adopt()
		})
		if err != nil {
			return err
		}
		if n%100 == 99 {
			r.Say("%s: %d of %d files of records", org, n+1, len(places))
		}
	}
	if err := adopt(); err != nil {
		return err
	}
	r.Say("%s: %d records from %d files, the newest of %s", org, result.Records, result.RecordFiles, result.Newest.Format(time.RFC3339))
	return nil
}

// recordFiles lists the files of all buckets in the order of their names: by day, then by the number of their newest record.
func (r *rebuild) recordFiles(ctx context.Context, org lake.Organization, since time.Time) ([]place, error) {
	var places []place
	for _, b := range r.buckets {
		for f, err := range archive.RecordFiles(ctx, b, org, since) {
			if err != nil {
				return nil, err
			}
			places = append(places, place{b, f})
		}
	}
	slices.SortStableFunc(places, func(a, b place) int { return cmp.Compare(a.file.Key, b.file.Key) })
	return places, nil
}

func (r *rebuild) record(line []byte) (index.Record, error) {
	var record index.Record
	line, err := r.move(line)
	if err != nil {
		return record, err
	}
	if err := json.Unmarshal(line, &record); err != nil {
		return record, fmt.Errorf("read a commit record: %w", err)
	}
	return record, nil
}

// moveLines gives the rows of a snapshot the names of the buckets that the lake was moved to.
func (r *rebuild) moveLines(rows []byte) ([]byte, error) {
	if len(r.Buckets) == 0 {
		return rows, nil
	}
	out := make([]byte, 0, len(rows))
	for line := range bytes.Lines(rows) {
		moved, err := r.move(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			return nil, err
		}
		out = append(append(out, moved...), '\n')
	}
	return out, nil
}

// move renames buckets in a JSON document: every string that a member of the name "bucket" has, however deep, and the beginnings of
// folders, which are bucket/key.
func (r *rebuild) move(document []byte) ([]byte, error) {
	if len(r.Buckets) == 0 {
		return document, nil
	}
	d := json.NewDecoder(bytes.NewReader(document))
	d.UseNumber() // hashes do not fit into a float
	var tree any
	if err := d.Decode(&tree); err != nil {
		return nil, fmt.Errorf("read a row of the archive: %w", err)
	}
	return json.Marshal(r.moved(tree))
}

func (r *rebuild) moved(tree any) any {
	switch t := tree.(type) {
	case map[string]any:
		for name, member := range t {
			switch name {
			case "bucket":
				t[name] = r.renamed(member)
			case "folders":
				t[name] = r.renamedFolders(member)
			default:
				t[name] = r.moved(member)
			}
		}
	case []any:
		for i := range t {
			t[i] = r.moved(t[i])
		}
	}
	return tree
}

func (r *rebuild) renamed(member any) any {
	if name, ok := member.(string); ok && r.Buckets[name] != "" {
		return r.Buckets[name]
	}
	return member
}

func (r *rebuild) renamedFolders(member any) any {
	folders, ok := member.([]any)
	if !ok {
		return member
	}
	for i, f := range folders {
		folder, _ := f.(string)
		bucket, rest, cut := bytes.Cut([]byte(folder), []byte("/"))
		if to := r.Buckets[string(bucket)]; cut && to != "" {
			folders[i] = to + "/" + string(rest)
		}
	}
	return folders
}
