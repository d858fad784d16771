// SPDX-License-Identifier: AGPL-3.0-only

package archive

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

const (
	snapshotsFolder = "snapshots/"
	manifestName    = "manifest.json"
	manifestVersion = 1
	maxManifest     = 64 << 20
)

// Overlap is how long before a snapshot's start records are replayed over it. It bounds how long a transaction may have been under
// way when the snapshot began to read.
const Overlap = time.Hour

// Manifest says what a snapshot consists of.
type Manifest struct {
	Version      int               `json:"version"`
	Organization lake.Organization `json:"organization"`
	// StartedAt and FinishedAt are on the database's clock.
	StartedAt  time.Time `json:"started_at"`
	FinishedAt time.Time `json:"finished_at"`
	Rows       int64     `json:"rows"`
	Parts      []Part    `json:"parts"`
}

// Part is one file of a snapshot.
type Part struct {
	Table  string `json:"table"`
	Name   string `json:"name"` // in the snapshot's folder
	Rows   int64  `json:"rows"`
	Bytes  int64  `json:"bytes"`  // before compression
	SHA256 string `json:"sha256"` // of the rows before compression
}

// SnapshotWriter writes one snapshot.
type SnapshotWriter struct {
	bucket   objects.Bucket
	folder   string
	manifest Manifest
}

// NewSnapshot begins a snapshot. No other one may have its id; ids sort by time.
func NewSnapshot(bucket objects.Bucket, org lake.Organization, id string) *SnapshotWriter {
	return &SnapshotWriter{
		bucket: bucket, folder: snapshotsPrefix(org) + id + "/",
		manifest: Manifest{Version: manifestVersion, Organization: org},
	}
}

// Part writes some rows of a table, a line each.
func (w *SnapshotWriter) Part(ctx context.Context, table string, rows []byte) error {
	if !bytes.HasSuffix(rows, []byte("\n")) {
		rows = append(slices.Clone(rows), '\n')
	}
	sum := sha256.Sum256(rows)
	p := Part{
		Table: table, Name: fmt.Sprintf("%s-%06d%s", table, len(w.manifest.Parts), linesSuffix),
		Rows: int64(bytes.Count(rows, []byte("\n"))), Bytes: int64(len(rows)), SHA256: hex.EncodeToString(sum[:]),
	}
	if _, err := putLines(ctx, w.bucket, w.folder+p.Name, rows); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	w.manifest.Parts = append(w.manifest.Parts, p)
	w.manifest.Rows += p.Rows
	return nil
}

// Finish writes the manifest, and with it makes the snapshot one.
func (w *SnapshotWriter) Finish(ctx context.Context, started, finished time.Time) (key string, m Manifest, err error) {
	w.manifest.StartedAt, w.manifest.FinishedAt = started.UTC(), finished.UTC()
	document, err := json.MarshalIndent(w.manifest, "", " ")
	if err != nil {
		return "", Manifest{}, err
	}
	key = w.folder + manifestName
	if _, err := w.bucket.Put(ctx, key, bytes.NewReader(document), int64(len(document))); err != nil {
		return "", Manifest{}, fmt.Errorf("write manifest of snapshot: %w", err)
	}
	return key, w.manifest, nil
}

// Snapshot is what a bucket holds of one snapshot.
type Snapshot struct {
	ID string
	// Manifest is nil while the snapshot is being written, and for ever if its writer died.
	Manifest *Manifest
	// Keys are all its files, the manifest first.
	Keys []string
	// LastModified is when the last of the files was written, by the bucket's clock.
	LastModified time.Time

	bucket objects.Bucket
	folder string
}

// Snapshots lists an organization's snapshots in a bucket, newest first.
func Snapshots(ctx context.Context, bucket objects.Bucket, org lake.Organization) ([]*Snapshot, error) {
	var found []*Snapshot
	prefix := snapshotsPrefix(org)
	for f, err := range files(ctx, bucket, prefix, "") {
		if err != nil {
			return nil, err
		}
		id, name, ok := strings.Cut(strings.TrimPrefix(f.Key, prefix), "/")
		if !ok {
			continue
		}
		if len(found) == 0 || found[len(found)-1].ID != id {
			found = append(found, &Snapshot{ID: id, bucket: bucket, folder: prefix + id + "/"})
		}
		s := found[len(found)-1]
		if err := s.add(ctx, f, name); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(found, func(a, b *Snapshot) int { return cmp.Compare(b.ID, a.ID) })
	return found, nil
}

func (s *Snapshot) add(ctx context.Context, f File, name string) error {
	if f.LastModified.After(s.LastModified) {
		s.LastModified = f.LastModified
	}
	if name != manifestName {
		s.Keys = append(s.Keys, f.Key)
		return nil
	}
	s.Keys = slices.Insert(s.Keys, 0, f.Key)
	manifest, err := readManifest(ctx, s.bucket, f.Key)
	// A trim may take it away between the listing and the reading.
	if err != nil && !errors.Is(err, fault.NotFound) {
		return err
	}
	s.Manifest = manifest
	return nil
}

func readManifest(ctx context.Context, bucket objects.Bucket, key string) (*Manifest, error) {
	body, _, err := bucket.Get(ctx, key, "")
	if err != nil {
		return nil, fmt.Errorf("read manifest of snapshot: %w", err)
	}
	document, err := io.ReadAll(io.LimitReader(body, maxManifest))
	if err = errors.Join(err, body.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	var m Manifest
	if err := json.Unmarshal(document, &m); err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	if m.Version != manifestVersion {
		return nil, fault.New(fault.Invalid, "%s is of version %d, this release reads version %d", key, m.Version, manifestVersion)
	}
	return &m, nil
}

// Since is from when on records are to be replayed over the snapshot.
func (m *Manifest) Since() time.Time { return m.StartedAt.Add(-Overlap) }

// Read gives each part's rows, in the order in which they were written, and fails where they are not those that were written.
func (s *Snapshot) Read(ctx context.Context, each func(p Part, rows []byte) error) error {
	if s.Manifest == nil {
		return fault.New(fault.Invalid, "snapshot %s is not complete", s.ID)
	}
	for _, p := range s.Manifest.Parts {
		rows, err := s.readPart(ctx, p)
		if err != nil {
			return err
		}
		if err := each(p, rows); err != nil {
			return fmt.Errorf("snapshot %s, %s: %w", s.ID, p.Name, err)
		}
	}
	return nil
}

func (s *Snapshot) readPart(ctx context.Context, p Part) ([]byte, error) {
	rows := make([]byte, 0, p.Bytes)
	err := ReadLines(ctx, s.bucket, s.folder+p.Name, func(line []byte) error {
		rows = append(append(rows, line...), '\n')
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read snapshot %s: %w", s.ID, err)
	}
	sum := sha256.Sum256(rows)
	if got := hex.EncodeToString(sum[:]); got != p.SHA256 {
		return nil, fault.New(fault.Internal, "snapshot %s is damaged: %s has hash %s, its manifest says %s", s.ID, p.Name, got, p.SHA256)
	}
	return rows, nil
}

// Delete removes the snapshot, its manifest first: what is left of it when that is cut off is no snapshot.
func (s *Snapshot) Delete(ctx context.Context) error {
	for _, keys := range [][]string{s.Keys[:1], s.Keys[1:]} {
		if err := s.bucket.Delete(ctx, keys...); err != nil {
			return fmt.Errorf("delete snapshot %s: %w", s.ID, err)
		}
	}
	return nil
}

func snapshotsPrefix(org lake.Organization) string {
	return lake.Prefix + string(org) + "/" + snapshotsFolder
}
