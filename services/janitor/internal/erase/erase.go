// SPDX-License-Identifier: AGPL-3.0-only

// Package erase sees deletes of data through: from the request to the final certificate.
//
// A delete's rows are in no answer from the moment that Index.CreateDelete returns. What is left to do is to have them out of every file:
//
//	rewriting   the windows of segments that may hold rows of it are handed to compaction, which writes the rows out or marks the segment
//	            as having none, and those of rollups to whoever makes these. It ends when no segment is left and none can come: a segment without the delete can only be committed
//	            by a lease that was claimed before the delete could be seen, so as long as one of those lives the delete stays here.
//	sweeping    source objects are dealt with as the policy says, and replaced files go by the janitor's sweep after their grace.
//	done        all files were seen to be gone: the certificate is in the audit log and in the bucket.
//
// Invariants:
//
//	E1. No delete is made without an entry in the audit log that was written before it.
//	E2. A source object is touched only when no receipt of it is pending, and only while it has the content that was ingested.
//	E3. A source object is deleted for a redacted copy only when the copy holds as many rows as the receipt brought, less the deleted ones.
//	E4. A certificate is final only when no live segment is under the delete, every replaced file was seen to be gone, and every touched
//	    object was dealt with. What stays possible is named in its limits.
//	E5. Every step may be done twice: after a crash the next run goes on.
//
// It does not rewrite segments (the compactor does) and does not delete their files (the sweep does).
package erase

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// Index is what deletes need of the index.
type Index interface {
	Now(ctx context.Context) (time.Time, error)
	Lookup(ctx context.Context, query index.Query) (index.Answer, error)
	CreateDelete(ctx context.Context, d lake.Delete) (lake.Delete, error)
	Deletes(ctx context.Context, query index.DeleteQuery) (deletes []lake.Delete, latest lake.DeleteID, err error)
	Delete(ctx context.Context, id lake.DeleteID) (lake.Delete, error)
	DeleteProgress(ctx context.Context, id lake.DeleteID) (index.DeleteProgress, error)
	AdvanceDelete(ctx context.Context, id lake.DeleteID, from, to lake.DeleteState) error
	SegmentsUnderDelete(ctx context.Context, id lake.DeleteID, after lake.SegmentID, limit int) ([]lake.Segment, error)
	DeleteSegments(ctx context.Context, id lake.DeleteID) ([]index.DeletedSegment, error)
	DeleteSources(ctx context.Context, id lake.DeleteID, after lake.ReceiptID, limit int) ([]index.DeletedSource, error)
	MarkDeleteSource(ctx context.Context, id lake.DeleteID, receipt lake.ReceiptID, action string, raw lake.RawState) error
	SetRaw(ctx context.Context, id lake.ReceiptID, from, to lake.RawState) error
	SegmentsOf(ctx context.Context, receipt lake.ReceiptID) ([]lake.Segment, error)
	Audit(ctx context.Context, entry index.AuditEntry) (index.AuditEntry, error)

	Revisions(ctx context.Context, bucket, key string) ([]lake.Receipt, error)
	LeasesBefore(ctx context.Context, org lake.Organization, kinds []lake.TaskKind, before time.Time) (int64, error)
	Undecoded(ctx context.Context, org lake.Organization, signal lake.Signal, before time.Time) (index.Undecoded, error)
	RowsDeletedOf(ctx context.Context, receipt lake.ReceiptID) (index.RowsDeleted, error)
	AuditEntriesOf(ctx context.Context, action, subject string) ([]index.AuditEntry, error)
}

// Deps are what deletes work on.
type Deps struct {
	Index   Index
	Objects objects.Store
	Config  config.Source
	// Scratch is a directory for files that are being read back. Empty: the system's.
	Scratch string
	// Every is how long the duty waits for its next run. Zero: a minute.
	Every time.Duration
	// Patience is how long a certificate waits for objects that were received before the delete and are not decoded. Zero: two days.
	Patience time.Duration
	// Ship, if not nil, brings an organization's commit records into the bucket at once, so that a delete outlives the database. That it
	// fails does not undo the delete: the records follow later.
	Ship func(ctx context.Context, org lake.Organization) error
}

// Eraser sees deletes through.
type Eraser struct{ deps Deps }

// New returns an eraser.
func New(d Deps) *Eraser {
	d.Every = cmp.Or(d.Every, time.Minute)
	d.Patience = cmp.Or(d.Patience, 48*time.Hour)
	d.Scratch = cmp.Or(d.Scratch, os.TempDir())
	return &Eraser{deps: d}
}

// Bounds of a request.
const (
	maxSelector = 8 << 10
	maxReason   = 4 << 10
)

// The audit log's names of what happens to a delete; the subject is its number, or for a request the organization.
const (
	ActionRequested = "delete.requested"
	ActionCreated   = "delete.created"
	ActionCertified = "delete.certified"
)

// Planned says what a delete would touch.
type Planned struct {
	Segments, Bytes int64 // that may hold rows of it
	// Streams is how many streams, or series of metrics, of them the selector's matchers let through; it is counted only when Counted is true,
	// and Segments and Bytes are then of segments with such a one alone. Too many segments are not opened for a count.
	Streams int64
	Counted bool
}

// Plan checks a delete and says what it would touch.
func (e *Eraser) Plan(ctx context.Context, d lake.Delete) (lake.Delete, Planned, error) {
	d, err := e.complete(ctx, d)
	if err != nil {
		return d, Planned{}, err
	}
	planned, err := e.estimate(ctx, d)
	return d, planned, err
}

// Create makes a delete. From its return on the rows are in no answer.
func (e *Eraser) Create(ctx context.Context, d lake.Delete) (lake.Delete, error) {
	d, err := e.complete(ctx, d)
	if err != nil {
		return d, err
	}
	if err := e.audit(ctx, d, ActionRequested, string(d.Organization)); err != nil {
		return d, err
	}
	created, err := e.deps.Index.CreateDelete(ctx, d)
	if err != nil {
		return d, err
	}
	if err := e.audit(ctx, created, ActionCreated, subjectOf(created.ID)); err != nil {
		return created, fmt.Errorf("delete %d is made, but its second entry in the audit log is not: %w", created.ID, err)
	}
	if e.deps.Ship != nil {
		_ = e.deps.Ship(ctx, d.Organization)
	}
	return created, nil
}

// complete checks a request and fills in what it leaves open.
func (e *Eraser) complete(ctx context.Context, d lake.Delete) (lake.Delete, error) {
	if d.Signal == lake.SignalUnknown {
		d.Signal = lake.SignalLogs
	}
	if d.Sources == "" {
		d.Sources = lake.SourceLeave
	}
	now, err := e.deps.Index.Now(ctx)
	if err != nil {
		return d, err
	}
	if d.Start.Before(time.Unix(0, 0)) {
		d.Start = time.Unix(0, 0)
	}
	if d.End.IsZero() {
		d.End = now
	}
	d.Start, d.End = d.Start.UTC(), d.End.UTC()
	if err := check(d); err != nil {
		return d, fault.Wrap(fault.Invalid, err)
	}
	_, err = finderOf(d)
	return d, err
}

func check(d lake.Delete) error {
	switch {
	case d.Signal != lake.SignalLogs && d.Signal != lake.SignalMetrics:
		return fmt.Errorf("rows of %s cannot be deleted by a selector: only those of logs and metrics", d.Signal)
	case strings.TrimSpace(d.Selector) == "":
		return errors.New("a selector is wanted")
	case len(d.Selector) > maxSelector:
		return fmt.Errorf("the selector has %d bytes, at most %d are taken", len(d.Selector), maxSelector)
	case strings.TrimSpace(d.Reason) == "":
		return errors.New("a reason is wanted, for the audit log")
	case len(d.Reason) > maxReason:
		return fmt.Errorf("the reason has %d bytes, at most %d are taken", len(d.Reason), maxReason)
	case !d.Start.Before(d.End):
		return fmt.Errorf("the range is empty: from %s to %s", d.Start.Format(time.RFC3339), d.End.Format(time.RFC3339))
	case d.End.Year() > 2200:
		return fmt.Errorf("the end %s lies too far ahead", d.End.Format(time.RFC3339))
	}
	if d.Signal == lake.SignalMetrics && d.Sources == lake.SourceRedact {
		return errors.New("objects of metrics cannot be redacted, since segments do not hold all that a copy would have to have: leave them, or erase them whole")
	}
	switch d.Sources {
	case lake.SourceLeave, lake.SourceErase, lake.SourceRedact:
	default:
		return fmt.Errorf("policy %q for source objects: want leave, erase or redact", d.Sources)
	}
	return d.Organization.Valid()
}

// Progress says how far a delete has come.
func (e *Eraser) Progress(ctx context.Context, id lake.DeleteID) (lake.Delete, index.DeleteProgress, error) {
	d, err := e.deps.Index.Delete(ctx, id)
	if err != nil {
		return d, index.DeleteProgress{}, err
	}
	progress, err := e.deps.Index.DeleteProgress(ctx, id)
	return d, progress, err
}

// audit writes an entry that says what the delete is.
func (e *Eraser) audit(ctx context.Context, d lake.Delete, action, subject string) error {
	detail, err := json.Marshal(map[string]any{
		"signal": d.Signal.String(), "selector": d.Selector, "start": d.Start, "end": d.End, "sources": d.Sources, "reason": d.Reason,
	})
	if err != nil {
		return err
	}
	_, err = e.deps.Index.Audit(ctx, index.AuditEntry{
		Actor: cmp.Or(d.Actor, actor), Organization: d.Organization, Action: action, Subject: subject, Detail: string(detail),
	})
	return err
}

// actor is who does what nobody asked for.
const actor = "janitor"

func subjectOf(id lake.DeleteID) string { return strconv.FormatInt(int64(id), 10) }
