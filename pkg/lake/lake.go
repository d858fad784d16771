// SPDX-License-Identifier: AGPL-3.0-only

package lake

import (
	"fmt"
	"time"
)

// Signal is a kind of telemetry.
type Signal uint8

// The signals. SignalUnknown is a source object's before its content has been seen.
const (
	SignalUnknown Signal = iota
	SignalLogs
	SignalMetrics
	SignalSpans
)

// String returns "unknown", "logs", "metrics" or "spans".
func (s Signal) String() string {
	switch s {
	case SignalLogs:
		return "logs"
	case SignalMetrics:
		return "metrics"
	case SignalSpans:
		return "spans"
	}
	return "unknown"
}

// ParseSignal is String's inverse; "traces" is accepted for spans.
func ParseSignal(s string) (Signal, error) {
	switch s {
	case "logs":
		return SignalLogs, nil
	case "metrics":
		return SignalMetrics, nil
	case "spans", "traces":
		return SignalSpans, nil
	case "", "unknown":
		return SignalUnknown, nil
	}
	return SignalUnknown, fmt.Errorf("unknown signal %q: want logs, metrics or spans", s)
}

// Organization is the id of a tenant: 1 to 63 of a-z, 0-9, '-', '_', beginning with a letter or digit.
type Organization string

// Valid reports whether the id has the form that keys in the bucket rely on.
func (o Organization) Valid() error {
	if len(o) == 0 || len(o) > 63 {
		return fmt.Errorf("organization %q: want 1 to 63 characters", string(o))
	}
	for i := 0; i < len(o); i++ {
		c := o[i]
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '-' && c != '_') {
			return fmt.Errorf("organization %q: want a-z, 0-9, '-' and '_', beginning with a letter or digit", string(o))
		}
	}
	return nil
}

// Object names one version of one source object. Events and listings name it alike.
type Object struct {
	Bucket string
	Key    string // decoded, never URL-encoded
	Tag    string // content tag: unquoted ETag, or GCS generation
	Size   int64  // bytes
	// LastModified is the store's time of the write; zero: not known.
	LastModified time.Time
}

// ReceiptState is how far the account of one object has come.
type ReceiptState string

// The states of a receipt.
const (
	ReceiptPending    ReceiptState = "pending"
	ReceiptDone       ReceiptState = "done"
	ReceiptSkipped    ReceiptState = "skipped"
	ReceiptFailed     ReceiptState = "failed"
	ReceiptSuperseded ReceiptState = "superseded"
)

// ReceiptID numbers receipts; it is the `source` that rows carry.
type ReceiptID int64

// Receipt is the account of one revision of one source object.
type Receipt struct {
	ID           ReceiptID
	Organization Organization // empty: no storage profile claims the object
	Collector    string
	Signal       Signal
	Object       Object
	Revision     int32
	State        ReceiptState
	Reason       string
	Format       string
	RowsIn       int64
	RowsOut      int64
	Rejected     map[string]int64 // rows by reason
	CreatedAt    time.Time
	UpdatedAt    time.Time
	Attempts     int32
	// ReceivedAt is the earliest time at which an object of this bucket and key was received or written: a delete reaches it if it is
	// not later than the delete. Filled by Claim; zero elsewhere.
	ReceivedAt time.Time
	// Raw is what became of the source object itself.
	Raw RawState
}

// RawState is what became of a source object after it was ingested.
type RawState string

// The states of a source object. Only RawKept objects can be replayed at once.
const (
	RawKept     RawState = ""         // it is where it was
	RawMoving   RawState = "moving"   // it is about to be copied onto itself in another storage class
	RawMoved    RawState = "moved"    // it is in another storage class
	RawExpired  RawState = "expired"  // it was deleted by policy
	RawErased   RawState = "erased"   // it was deleted for a delete of data
	RawRedacted RawState = "redacted" // it was replaced by a copy below Prefix without the deleted rows
)

// Outcome is what ingest says of one receipt in its Edit.
type Outcome struct {
	Receipt  ReceiptID
	State    ReceiptState // done, skipped or failed
	Signal   Signal
	Reason   string
	Format   string
	RowsIn   int64
	RowsOut  int64
	Rejected map[string]int64
}

// SegmentID numbers segments in the index.
type SegmentID int64

// Segment is one Parquet file of one organization, signal and window, with its sidecar (token filter and catalogue) beside it.
type Segment struct {
	ID           SegmentID // zero until committed
	Organization Organization
	Signal       Signal
	Window       Window
	Level        int
	// Resolution is the width of a rollup's buckets; zero: rows as they were received.
	Resolution time.Duration
	// Shard is the part of the window's series that a segment of metrics holds.
	Shard         Shard
	Bucket        string
	Key           string
	Bytes         int64
	SidecarBytes  int64
	Rows          int64
	FirstTime     time.Time // earliest row, inclusive
	LastTime      time.Time // latest row, inclusive
	FormatVersion int
	RowHash       uint64      // sum (mod 2^64) of the row hashes
	Sources       []ReceiptID // sorted
	// MaskedSources are those of Sources whose rows must not be answered any more; filled by Lookup.
	MaskedSources []ReceiptID
	// AppliedDelete is the highest number of a delete whose rows are not in the file any more: later ones mask it.
	AppliedDelete DeleteID
	// Rules are the names of the field rules that were applied to its rows, sorted.
	Rules []string
	// Identified says that some of its rows have an identity (see Origin.Identity of package columns): doubles across segments are not answered.
	Identified bool
	// Lease added the segment; filled by reads of the index.
	Lease     LeaseID
	CreatedAt time.Time
}

// TaskKind is a kind of work.
type TaskKind string

// The kinds of work of this release.
const (
	TaskIngest  TaskKind = "ingest"
	TaskCompact TaskKind = "compact" // of a window: an hour (tier 0), or a day (tier 1)
	TaskRollup  TaskKind = "rollup"  // of a window to a resolution, whose seconds are the tier
	// The janitor's duties are of an organization, and of a signal where that is said; each asks for itself again, with a delay.
	TaskExpire    TaskKind = "expire"    // retention, of one signal
	TaskSweep     TaskKind = "sweep"     // files that are nobody's any more: of removed segments and of leases that ended without a commit
	TaskReconcile TaskKind = "reconcile" // source objects against receipts
	TaskInspect   TaskKind = "inspect"   // our own files against the index: missing and orphaned ones
	TaskErase     TaskKind = "erase"     // deletes of data
	TaskShip      TaskKind = "ship"      // commit records and snapshots into the bucket
	TaskRaw       TaskKind = "raw"       // source objects by policy
	TaskUpkeep    TaskKind = "upkeep"    // of the database; of no organization's data, so any organization's lease may do it
)

// TaskID numbers tasks.
type TaskID int64

// Task is a piece of work. An ingest task is one receipt's.
type Task struct {
	ID           TaskID
	Kind         TaskKind
	Organization Organization
	Signal       Signal
	Window       Window // zero for ingest
	Tier         int    // resolution or level that the work is for; zero for ingest
	Receipt      ReceiptID
	Bytes        int64 // what it weighs against a batch's byte budget
	Attempts     int32
	Cause        string // of the last failure
	CreatedAt    time.Time
	// Delay is how long from now, on the database's clock, an enqueued task is not to be claimed. A waiting one keeps the earlier time.
	Delay time.Duration
}

// LeaseID is the fencing token: unique, never used twice.
type LeaseID string

// Lease is the right to do some tasks of one organization until it expires, on the database's clock.
type Lease struct {
	ID           LeaseID
	Kind         TaskKind
	Organization Organization
	Tasks        []Task
	Receipts     []Receipt // of ingest tasks, in the order of Tasks
	Duration     time.Duration
	// ClaimedAt is the database's time of the claim.
	ClaimedAt time.Time
}

// Edit is an atomic change of the lake: all of it happens, or none.
type Edit struct {
	Add      []Segment
	Remove   []SegmentID
	Outcomes []Outcome // one for each receipt of the lease that is finished
	// Retry are tasks of the lease that this edit leaves undone: they go back with a cause, and back off.
	Retry []Retry
	Next  []Task
	// Expect are the content versions of the windows that this edit was derived from; it happens only if they still stand.
	Expect []WindowVersion
	// Rewrite says that the edit changes files but no answer (compaction): content versions stay as they are.
	Rewrite bool
	// Expired says that the edit left rows out that are past their retention. Where there are rollups they keep counting them, so that from
	// then on the window has not all its rows.
	Expired bool
	// Rolled are the rollups that this edit makes current: it replaces all earlier segments of their windows and resolutions.
	Rolled []Rolled
	// Marks say of live segments what need not be done to them any more.
	Marks []Mark
	// Deleted are the rows that this edit left out because of deletes of data.
	Deleted []DeletedRows
	// Cost is what the work asked of object stores.
	Cost Cost
}

// Mark says of a live segment, without rewriting it, that deletes and field rules have nothing to change in it (any more).
type Mark struct {
	Segment       SegmentID
	AppliedDelete DeleteID // never lowered
	Rules         []string // added to those that it has
}

// DeletedRows counts the rows of one source object that a delete kept from being written, and where they were.
type DeletedRows struct {
	Delete  DeleteID
	Source  ReceiptID
	Segment SegmentID // that they were in; zero: the rows never were in one
	Rows    int64
}

// Cost counts requests to object stores and their bytes.
type Cost struct {
	Puts, Gets, Lists, Deletes int64
	BytesRead, BytesWritten    int64
}

// DeleteID numbers deletes of data, from 1.
type DeleteID int64

// SourcePolicy says what a delete does to the source objects that its rows came from.
type SourcePolicy string

// What can be done with source objects of deleted rows.
const (
	SourceLeave  SourcePolicy = "leave"
	SourceErase  SourcePolicy = "erase"  // delete the whole object
	SourceRedact SourcePolicy = "redact" // put a copy without the rows below Prefix, and delete the object
)

// DeleteState is how far a delete of data has come.
type DeleteState string

// The states of a delete. Its rows are in no answer from the first on.
const (
	DeleteRewriting DeleteState = "rewriting" // segments still hold its rows, masked
	DeleteSweeping  DeleteState = "sweeping"  // no live segment holds them; replaced files wait for their grace, source objects for their policy
	DeleteDone      DeleteState = "done"      // the certificate is final
)

// Delete is a delete of data: rows of one organization and signal, of a range of event time, that a selector chooses.
type Delete struct {
	ID           DeleteID
	Organization Organization
	Signal       Signal
	// Selector is a LogQL log selector, with or without a pipeline: a row that it lets through is deleted.
	Selector string
	Start    time.Time // inclusive
	End      time.Time // exclusive
	Sources  SourcePolicy
	State    DeleteState
	Actor    string // id of the API key that asked for it
	Reason   string
	// CreatedAt is the database's time of the delete: objects received later keep their rows.
	CreatedAt time.Time
	UpdatedAt time.Time
}

// WindowVersion is the content version of a window: every edit that changes rows in it makes it larger.
type WindowVersion struct {
	Signal  Signal
	Window  Window
	Version int64
}

// Rolled says that the rollup of a window at a resolution was made of the rows that the window had at a content version. It is current as
// long as the window has that version and no later delete masks rows of it.
type Rolled struct {
	Signal     Signal
	Window     Window
	Resolution time.Duration
	Version    int64
	// AppliedDelete is the highest number of a delete whose rows are not in it.
	AppliedDelete DeleteID
	// Skipped says that there is nothing at this resolution, since the rows are no finer than it: a finer one answers.
	Skipped bool
	// OfItself says that it was made of the rollup that it takes the place of, by leaving out what deletes chose. So it needs no rows.
	OfItself bool
}

// Retry gives one task back with its cause. It brings the task nearer to being buried, unless it is Blameless.
type Retry struct {
	Task  TaskID
	Cause string
	// Blameless says that the cause lies outside the task and passes, such as an object store that is away: the task waits longer
	// each time, however long that lasts, and is never buried for it.
	Blameless bool
}
