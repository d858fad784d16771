// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"time"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Config says how to reach the index's database.
type Config struct {
	// URL is a postgres:// URL or a DSN of PostgreSQL 13 or later.
	URL string `yaml:"url"`
	// MaxConns bounds the connections of this process. Zero: 8.
	MaxConns int `yaml:"max_conns"`
}

// Notice tells of one object.
type Notice struct {
	Object       lake.Object
	Organization lake.Organization // may be empty when SkipReason is set
	Collector    string
	Signal       lake.Signal // may be unknown
	// SkipReason, if not empty, makes the receipt 'skipped' with this reason and no task.
	SkipReason string
	// Replace makes a rewritten object's rows take the place of its older revisions' (on_rewrite: replace).
	Replace bool
}

// Noticed is the receipt that stands for a notice's object.
type Noticed struct {
	Receipt lake.Receipt
	// Duplicate is true when the object had this receipt already.
	Duplicate bool
}

// Batch says what a claim may take.
type Batch struct {
	Kind lake.TaskKind
	// MaxBytes bounds the batch; one task larger than that is taken alone. Zero: 64 MiB.
	MaxBytes int64
	// MaxTasks bounds the batch. Zero: 500. At most 5,000.
	MaxTasks int
	// MinBytes are what a batch waits for, but not longer than MaxWait since its oldest task came. Zero: it does not wait.
	MinBytes int64
	MaxWait  time.Duration
	// Duration is how long the lease lives without being renewed. Zero: one minute.
	Duration time.Duration
	// MaxAttempts is how often a task may fail alone before it is buried. Zero: 5.
	MaxAttempts int
	// Receipt, if not zero, asks for this receipt's task alone, at once: whatever it waits for, backing off included.
	Receipt lake.ReceiptID
	// Work, if not nil, asks for the task of this organization, signal, window and tier alone, at once as well. It must be of Kind.
	Work *lake.Task
}

// ReceiptQuery asks for a page of receipts, newest first.
type ReceiptQuery struct {
	// Organization whose receipts are listed; empty: those of objects that no storage profile claims.
	Organization lake.Organization
	State        lake.ReceiptState // empty: any
	Bucket       string            // empty: any
	KeyPrefix    string            // empty: any
	PageSize     int               // zero: 100, at most 1,000
	PageToken    string            // of the page before; empty: the first page
}

// ReplayQuery says which objects are to be ingested once more.
type ReplayQuery struct {
	Organization lake.Organization
	// Receipts to replay, at most 1,000; empty: all that match State and KeyPrefix.
	Receipts  []lake.ReceiptID
	State     lake.ReceiptState // failed, skipped or done; empty with Receipts: any of them
	KeyPrefix string            // empty: any
	DryRun    bool              // count only
}

// Query asks for the segments of one organization and signal whose rows may lie in [Start, End) of event time.
type Query struct {
	Organization lake.Organization
	Signal       lake.Signal
	Start, End   time.Time
	// Resolution asks for rollups of it, as far as they are current. Zero: for rows as they were received.
	Resolution time.Duration
}

// Answer is what one snapshot of the index says to a Query.
type Answer struct {
	// Segments ordered by window and id. Sources is not filled (the footer has them); MaskedSources is.
	Segments []lake.Segment
	// Deletes that may mask rows of some of the segments, rising: those with a higher number than a segment's AppliedDelete.
	Deletes      []lake.Delete
	Completeness Completeness
	// Uncovered are, where rollups were asked for, the hours that have rows and no current rollup of the resolution, rising: a finer
	// resolution answers for them.
	Uncovered []lake.Window
	// At is the database's time of the snapshot.
	At time.Time
}

// Completeness says what an answer may lack: receipts of the organization and signal (or of a signal not known yet) whose
// objects were written late enough to hold rows of the range. It errs on the side of naming too many.
type Completeness struct {
	Pending int64 // counted up to CompletenessCap
	Failed  int64 // counted up to CompletenessCap
	// OldestPending is when the oldest of the pending ones came; zero: none is pending.
	OldestPending time.Time
}

// CompletenessCap is where counting of pending and failed receipts stops: "this many or more".
const CompletenessCap = 1_000

// Backlog is the waiting and buried work of one kind, organization and signal.
type Backlog struct {
	Kind         lake.TaskKind
	Organization lake.Organization
	Signal       lake.Signal
	Tasks        int64 // waiting or being worked on
	Bytes        int64
	Oldest       time.Time // when the oldest waiting task came; zero: none
	Buried       int64
}

// BackfillID numbers backfills.
type BackfillID int64

// BackfillState is a backfill's life cycle: running <-> paused, then done or failed; a failed one can be set running again.
type BackfillState string

// The states of a backfill.
const (
	BackfillRunning BackfillState = "running"
	BackfillPaused  BackfillState = "paused"
	BackfillDone    BackfillState = "done"
	BackfillFailed  BackfillState = "failed"
)

// BackfillEstimate says what a backfill would take.
type BackfillEstimate struct {
	Objects      int64         `json:"objects"`
	Bytes        int64         `json:"bytes"`
	KnownObjects int64         `json:"known_objects"` // those with a receipt already
	Requests     int64         `json:"requests"`
	PriceUSD     float64       `json:"price_usd"`
	Duration     time.Duration `json:"duration"`
	Truncated    bool          `json:"truncated"` // the listing was cut: true figures are higher
}

// Backfill is the plan to ingest what stands under a prefix already, and how far it has come.
type Backfill struct {
	ID               BackfillID
	Bucket           string
	Prefix           string
	ModifiedAfter    time.Time // inclusive; zero: no bound
	ModifiedBefore   time.Time // exclusive; zero: no bound
	ObjectsPerSecond int       // zero: the driver's default
	State            BackfillState
	Reason           string // why it failed
	Estimate         BackfillEstimate
	// Cursor is the driver's place, opaque to the index.
	Cursor      string
	ObjectsDone int64
	BytesDone   int64
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// BackfillLease is the right to drive one backfill until it expires, on the database's clock.
type BackfillLease struct {
	ID       lake.LeaseID
	Backfill Backfill
	Duration time.Duration
}

// BackfillStep is progress to be recorded.
type BackfillStep struct {
	Cursor  string // takes the place of the older one
	Objects int64  // handed over since the last step, known ones included
	Bytes   int64
	Done    bool // nothing is left: the backfill ends
}
