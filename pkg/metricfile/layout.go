// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import "github.com/parquet-go/parquet-go/format"

// The columns of every segment that say what a row is, in their order; those of layouts follow.
const (
	columnName = iota
	columnHash
	columnLabelNames
	columnLabelValues
	columnKind
	columnDelta
	columnNoSum
	columnBounds
	columnType
	columnUnit
	columnHelp
	columnRows
	columnSamples
	columnExemplarCount
	columnFirst
	columnLast
	fixedColumns
)

// layout is which columns of bytes a segment has.
type layout struct {
	// shared are vectors of integers that many rows have alike: Parquet dictionaries.
	shared []string
	// own are each row's alone, of kinds that have them.
	own []string
}

// The shared columns of points, and those of rollups.
const (
	sharedTimes = iota
	sharedStarts
	sharedSources
)

const (
	sharedEnds = iota
	sharedCounts
	sharedFirstTimes
	sharedLastTimes
	sharedStaleTimes
	maxShared
)

// The own columns of points, and those of rollups.
const (
	ownValues = iota
	ownCounts
	ownBuckets
	ownQuantiles
	ownHistograms
	ownExemplars
)

const (
	ownFirst = iota
	ownLast
	ownIncrease
	ownSum
	ownMin
	ownMax
	ownSketches
	maxOwn
)

func pointsLayout() *layout {
	return &layout{
		shared: []string{"times", "starts", "sources"},
		own:    []string{"values", "counts", "buckets", "quantiles", "histograms", "exemplars"},
	}
}

func rollupLayout() *layout {
	return &layout{
		shared: []string{"ends", "counts", "first_times", "last_times", "stale_times"},
		own:    []string{"first_values", "last_values", "increases", "sums", "minima", "maxima", "sketches"},
	}
}

func layoutOf(m *Meta) *layout {
	if m.Resolution > 0 {
		return rollupLayout()
	}
	return pointsLayout()
}

// schema is that of the Parquet file.
func (l *layout) schema() []column {
	text := func(name string, n nesting) column {
		return column{name: name, physical: format.ByteArray, text: true, nesting: n}
	}
	schema := []column{
		columnName:          text("name", required),
		columnHash:          {name: "hash", physical: format.Int64, unsigned: true, plain: true},
		columnLabelNames:    text("labels", mapKeys),
		columnLabelValues:   text("labels", mapValues),
		columnKind:          text("kind", required),
		columnDelta:         {name: "delta", physical: format.Boolean},
		columnNoSum:         {name: "no_sum", physical: format.Boolean},
		columnBounds:        {name: "bounds", physical: format.Double, nesting: listed},
		columnType:          text("type", required),
		columnUnit:          text("unit", required),
		columnHelp:          text("help", required),
		columnRows:          {name: "rows", physical: format.Int32},
		columnSamples:       {name: "samples", physical: format.Int64},
		columnExemplarCount: {name: "exemplar_count", physical: format.Int32},
		columnFirst:         {name: "first", physical: format.Int64},
		columnLast:          {name: "last", physical: format.Int64},
	}
	for _, name := range l.shared {
		schema = append(schema, column{name: name, physical: format.ByteArray, plain: true})
	}
	for _, name := range l.own {
		schema = append(schema, column{name: name, physical: format.ByteArray, plain: true, nesting: optional})
	}
	return schema
}
