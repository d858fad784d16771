// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"time"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// FormatVersion is the version of the files this release writes. It reads this one and all before it.
const FormatVersion = 2

// Meta says what a segment is, and where it came from.
type Meta struct {
	Organization lake.Organization
	Signal       lake.Signal
	Window       lake.Window
	Level        int
	Lease        lake.LeaseID
	Sources      []lake.ReceiptID // the source objects whose rows are in it
	Inputs       []string         // keys of the segments it was merged from; none at level 0
	// AppliedDelete is the highest number of a delete whose rows are not in it; Rules are the field rules that were applied, sorted. Since version 2.
	AppliedDelete lake.DeleteID
	Rules         []string
}

// Written is what the index wants to know of a segment file.
type Written struct {
	Bytes         int64
	SidecarBytes  int64
	Rows          int64
	First, Last   time.Time // event times, both inclusive
	RowHash       uint64    // sum of the row hashes
	FormatVersion int
	// Identified says that some of its rows have an identity.
	Identified bool
}

// Catalogue is what a segment holds, without its rows.
type Catalogue struct {
	Meta
	Streams       []StreamEntry    // indexed by the `stream` column
	Origins       []columns.Origin // indexed by the `origin` column
	Attributes    []AttributeEntry // sorted by name and kind
	RowGroups     []RowGroup
	Rows          int64
	BodyBytes     int64
	RowHash       uint64
	FormatVersion int
	// Identified says that some of its rows have an identity. Since version 2.
	Identified bool
}

// StreamEntry is one stream of a segment.
type StreamEntry struct {
	Labels      []columns.Label
	Rows        int64
	Bytes       int64 // of bodies
	First, Last int64 // ns since 1970, inclusive
}

// AttributeEntry is one attribute name with one kind of value.
type AttributeEntry struct {
	Name        string
	Kind        columns.ValueKind
	Column      string // the Parquet column; empty: in the column `attributes`
	Rows        int64
	Cardinality int64 // distinct values, within a tenth or so
}

// RowGroup is a run of rows that are stored together.
type RowGroup struct {
	FirstRow    int64 // the first value of the `row` column
	Rows        int64
	First, Last int64 // ns since 1970, inclusive
}
