// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"context"
	"io"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// MergeInput is a segment of points to be merged.
type MergeInput struct {
	// Name stands in errors: the segment's key.
	Name    string
	Parquet io.ReaderAt
	Size    int64
	Sidecar []byte
	// MaskedSources are those whose points leave.
	MaskedSources []lake.ReceiptID
	// Drop chooses more points that leave; a point leaves by the first rule that chooses it.
	Drop []DropRule
}

// Reason is why a point is not in the outputs.
type Reason uint8

// The reasons of a DropRule.
const (
	ReasonDeleted Reason = iota + 1 // a delete of data reaches it
	ReasonExpired                   // it is older than its policy keeps it
)

// DropRule chooses points that leave, and exemplars with them.
type DropRule struct {
	Reason Reason
	Delete lake.DeleteID // of ReasonDeleted
	// Start (inclusive) and End (exclusive) are ns since 1970.
	Start, End int64
	// Series chooses rows, which are whole classic histograms and summaries; nil: all. What it is given is valid only until it returns.
	Series func(s *Series) bool
}

// MergeOptions say what a merge makes.
type MergeOptions struct {
	// Meta is the outputs'; Shard and Sources are filled in for each.
	Meta Meta
	// Shards is how many shards of series there are, a power of two: each of them that has points gets an output. Zero and one: there is one output.
	Shards uint32
	// Memory is what the merge may hold, in bytes: it writes so many outputs at a time. If that is less than one, the error is fault.Exhausted, before the
	// first output is begun. Zero: no bound.
	Memory int64
	// Create begins the output of a shard. done is called when both files have been written. Those that were begun are left to the caller when Merge
	// fails.
	Create func(shard int) (parquet, sidecar io.Writer, done func() error, err error)
}

// MergeResult accounts for every point of the inputs.
type MergeResult struct {
	Outputs []MergeOutput // by shard
	RowsIn  int64
	RowsOut int64
	// Points that left, by reason.
	Masked, Deleted, Expired, Deduplicated int64
	// HashIn is the sum of the hashes of all points as they were read, HashLeft that of points which left.
	HashIn, HashLeft uint64
	// DeletedBy counts deleted points; it is sorted.
	DeletedBy []DeletedRows
}

// DeletedRows counts the points that a delete took from an input.
type DeletedRows struct {
	Delete lake.DeleteID
	Source lake.ReceiptID
	Input  int
	Rows   int64
}

// MergeOutput is one segment that a merge made.
type MergeOutput struct {
	Written
	Shard lake.Shard
	// Sources of its points, sorted.
	Sources []lake.ReceiptID
}

// Check reports an error unless every point that was read is either in an output or counted as one that left.
func (r *MergeResult) Check() error {
	var rows int64
	var hash uint64
	for i := range r.Outputs {
		rows += r.Outputs[i].Rows
		hash += r.Outputs[i].RowHash
	}
	left := r.Masked + r.Deleted + r.Expired + r.Deduplicated
	if rows != r.RowsOut || r.RowsIn != r.RowsOut+left {
		return fault.New(fault.Internal, "a merge read %d points, wrote %d and left out %d", r.RowsIn, rows, left)
	}
	if r.HashIn-r.HashLeft != hash {
		return fault.New(fault.Internal, "a merge wrote other points than it read: hash %x in, %x left, %x out", r.HashIn, r.HashLeft, hash)
	}
	return nil
}

// Merge merges segments of points, of one organization and window, into one for each shard: all points but those that leave. The points of a series, of
// whatever inputs, become one row. The result has passed Check. Without points there are no outputs.
//
// Of points of one row at one and the same time, that of the lowest source stays, and of these the one with the smallest RowHash: so whatever is merged
// first, the same points are left in the end. Of exemplars that differ only in their sources, that of the lowest stays. The family of a row is that of
// its latest point; of several, the greatest. Points whose time differs in less than a millisecond stay.
func Merge(ctx context.Context, inputs []MergeInput, o MergeOptions) (MergeResult, error) {
	m, err := newMerger(inputs, o)
	if err != nil {
		return MergeResult{}, err
	}
	if err := m.run(ctx); err != nil {
		return MergeResult{}, err
	}
	return m.result, nil
}
