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
}

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
	ID            SegmentID // zero until committed
	Organization  Organization
	Signal        Signal
	Window        Window
	Level         int
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
	CreatedAt     time.Time
}

// TaskKind is a kind of work.
type TaskKind string

// The kinds of work of this release.
const (
	TaskIngest TaskKind = "ingest"
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
}

// WindowVersion is the content version of a window: every edit that changes rows in it makes it larger.
type WindowVersion struct {
	Signal  Signal
	Window  Window
	Version int64
}

// Retry gives one task back with its cause. It brings the task nearer to being buried, unless it is Blameless.
type Retry struct {
	Task  TaskID
	Cause string
	// Blameless says that the cause lies outside the task and passes, such as an object store that is away: the task waits longer
	// each time, however long that lasts, and is never buried for it.
	Blameless bool
}
