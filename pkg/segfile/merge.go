// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"context"
	"io"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// MergeInput is a segment to be merged.
type MergeInput struct {
	// Name stands in errors: the segment's key.
	Name    string
	Parquet io.ReaderAt
	Size    int64
	// MaskedSources are those whose rows leave.
	MaskedSources []lake.ReceiptID
	// Drop chooses more rows that leave; a row leaves by the first rule that chooses it.
	Drop []RowRule
	// Fields change rows that stay. They are to be those that were not applied to the segment before.
	Fields []FieldRule
}

// Reason is why a row is not in the outputs.
type Reason uint8

// The reasons. RowRules have ReasonDeleted or ReasonExpired.
const (
	ReasonNone         Reason = iota // it is in the outputs
	ReasonMasked                     // its source was superseded
	ReasonDeleted                    // a delete of data reaches it
	ReasonExpired                    // it is older than its policy keeps it
	ReasonDeduplicated               // another row has its identity
	reasons
)

// RowRule chooses rows that leave.
type RowRule struct {
	Reason Reason
	Delete lake.DeleteID // of ReasonDeleted
	// Start (inclusive) and End (exclusive) are ns since 1970.
	Start, End int64
	// Stream is a first test, made once a stream; nil: all.
	Stream func(labels []columns.Label) bool
	// Row decides on one row as it stands in the input; nil: all rows of the stream. What it is given is valid only until it returns.
	Row func(labels []columns.Label, o columns.Origin, r *columns.LogRow) bool
}

// MergeOptions say what a merge makes.
type MergeOptions struct {
	// Meta is the outputs'; Sources are filled in for each, with those whose rows it has.
	Meta Meta
	// TargetBytes is the size of an output's Parquet file, about: an output ends with the first row group that reaches it, unless what is left
	// would make a file of less than an eighth of it. Zero: there is one output.
	TargetBytes int64
	// Memory is what the merge may hold, in bytes; more is the error fault.Exhausted, before the first output is begun. Zero: no bound.
	Memory int64
	// Create begins output n, from 0. done is called when both files have been written. An output that was begun is left to the caller
	// when Merge fails.
	Create func(n int) (parquet, sidecar io.Writer, done func() error, err error)
}

// MergeResult accounts for every row of the inputs.
type MergeResult struct {
	Outputs []Output
	RowsIn  int64
	RowsOut int64
	// Rows that left, by reason.
	Masked, Deleted, Expired, Deduplicated int64
	// Changed rows stayed, but a field rule changed them.
	Changed int64
	// HashIn is the sum of the hashes of all rows as they were read; HashLeft that of rows which left; HashBefore and HashAfter those of changed
	// rows, as they were and as they are; HashOut is the sum over the rows as they were handed to the encoder.
	HashIn, HashLeft, HashBefore, HashAfter, HashOut uint64
	// DeletedBy counts deleted rows; it is sorted.
	DeletedBy []DeletedRows
}

// DeletedRows counts the rows that a delete took from an input.
type DeletedRows struct {
	Delete lake.DeleteID
	Source lake.ReceiptID
	Input  int
	Rows   int64
}

// Output is one segment that a merge made.
type Output struct {
	Written
	// Sources of its rows, sorted.
	Sources   []lake.ReceiptID
	Catalogue *Catalogue
}

// Check reports an error unless every row that was read is either in an output or counted as one that left, unchanged but for field rules.
func (r *MergeResult) Check() error {
	var rows int64
	var hash uint64
	for i := range r.Outputs {
		rows += r.Outputs[i].Rows
		hash += r.Outputs[i].Catalogue.RowHash
	}
	left := r.Masked + r.Deleted + r.Expired + r.Deduplicated
	if rows != r.RowsOut || r.RowsIn != r.RowsOut+left {
		return fault.New(fault.Internal, "a merge read %d rows, wrote %d and left out %d", r.RowsIn, rows, left)
	}
	if hash != r.HashOut || r.HashIn-r.HashLeft-r.HashBefore+r.HashAfter != hash {
		return fault.New(fault.Internal, "a merge wrote other rows than it read: hash %x in, %x left, %x changed to %x, %x out, %x in catalogues",
			r.HashIn, r.HashLeft, r.HashBefore, r.HashAfter, r.HashOut, hash)
	}
	return nil
}

// Merge merges segments, of one organization, signal and window, into new ones: all rows but those that leave, in the order of columns.Logs.Sort,
// where rows that are equal in it stand in the order of the inputs. The result has passed Check. Without rows there are no outputs.
//
// Rows with an identity are kept once, as columns.Logs.DropDoubles does it: doubles are looked for among rows that stay, and as field rules left them.
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
