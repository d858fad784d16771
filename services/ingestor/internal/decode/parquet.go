// SPDX-License-Identifier: AGPL-3.0-only

package decode

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Parquet is a table of metrics as a Parquet file. Which columns are what is found as for CSV. Columns within others are passed over.
type Parquet struct{ Table *Table }

// Name is "parquet".
func (Parquet) Name() string { return "parquet" }

// Sniff knows the first bytes. Whether the columns are those of metrics is seen at the end of the file.
func (p Parquet) Sniff(head Head) (lake.Signal, bool) {
	others := head.Hint == lake.SignalLogs || head.Hint == lake.SignalSpans
	return lake.SignalMetrics, bytes.HasPrefix(head.Bytes, []byte("PAR1")) && (p.Table != nil || !others)
}

// inMemory is the size up to which a file is read into memory; larger ones go to disk, since they are read from their end.
const inMemory = 16 << 20

// Decode reads row after row. The library that it uses may panic on what is no Parquet; that is the content's failure.
func (p Parquet) Decode(r *Reader, o Options, to Sinks) (err error) {
	file, size, closeFile, err := spool(r, o)
	if err != nil {
		return err
	}
	defer closeFile()
	sink := &guarded{MetricSink: to.Metrics}
	defer func() {
		if caught := recover(); caught != nil && !sink.inside {
			err = fault.New(fault.Invalid, "parquet file is broken: %v", caught)
		} else if caught != nil {
			panic(caught)
		}
	}()
	return p.rows(file, size, o, sink)
}

// guarded tells panics of a sink from those of the library.
type guarded struct {
	MetricSink
	inside bool
}

// Point implements MetricSink.
func (g *guarded) Point(p *Point) error {
	g.inside = true
	err := g.MetricSink.Point(p)
	g.inside = false
	return err
}

// spool makes content readable at any place.
func spool(r *Reader, o Options) (at io.ReaderAt, size int64, closeFile func(), err error) {
	var buffer bytes.Buffer
	n, err := io.CopyN(&buffer, r, inMemory)
	if errors.Is(err, io.EOF) {
		return bytes.NewReader(buffer.Bytes()), n, func() {}, nil
	}
	if err != nil {
		return nil, 0, nil, err
	}
	file, err := os.CreateTemp(o.ScratchDirectory, "parquet-")
	if err != nil {
		return nil, 0, nil, fault.Wrap(fault.Unavailable, fmt.Errorf("scratch directory: %w", err))
	}
	closeFile = func() {
		file.Close()
		os.Remove(file.Name())
	}
	if size, err = io.Copy(file, io.MultiReader(&buffer, r)); err != nil {
		closeFile()
		return nil, 0, nil, err
	}
	return file, size, closeFile, nil
}

func errParquet(err error) error { return fault.New(fault.Invalid, "parquet file is broken: %w", err) }

func (p Parquet) rows(file io.ReaderAt, size int64, o Options, to MetricSink) error {
	f, err := parquet.OpenFile(file, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return errParquet(err)
	}
	if err := checkGrowth(f, size, o); err != nil {
		return err
	}
	names, kinds := leaves(f)
	table := p.Table
	if table == nil {
		table = knownTable(names)
	}
	if table == nil {
		return fmt.Errorf("format not supported by this release: parquet without columns for a metric's name, value and time: %w", ErrUnsupported)
	}
	rows, err := newTableRows(to, table, names)
	if err != nil {
		return err
	}
	g := groupReader{rows: rows, leaves: kinds, left: max(rowsAnyway, rowsPerByte*size)}
	for _, group := range f.RowGroups() {
		if err := g.read(group); err != nil {
			return err
		}
	}
	return nil
}

// Rows that are all alike take no bytes at all, so what is a bomb is seen from how many there are: more than rowsAnyway, and rowsPerByte of the file.
const (
	rowsAnyway  = 1 << 20
	rowsPerByte = 64
)

// checkGrowth holds what the footer says of the file's size when decompressed to the limits.
func checkGrowth(f *parquet.File, size int64, o Options) error {
	var total int64
	for _, group := range f.Metadata().RowGroups {
		for _, chunk := range group.Columns {
			n := chunk.MetaData.TotalUncompressedSize
			if n < 0 || total+n < total {
				return fault.New(fault.Invalid, "parquet file is broken: a column of %d bytes", n)
			}
			total += n
		}
	}
	if total > o.MaxBytes || total > ratioFrom && total > o.MaxRatio*size {
		return fault.New(fault.Invalid, "a parquet file of %d bytes would have %d when decompressed", size, total)
	}
	return nil
}

// leaf is how the values of a column are read.
type leaf struct {
	used bool
	// scale is how many ns a number of a time column counts; zero: it is none.
	scale int64
}

// leaves are the names of all columns, empty for those within others, and how they are read.
func leaves(f *parquet.File) (names []string, kinds []leaf) {
	schema := f.Schema()
	for _, path := range schema.Columns() {
		k, name := leaf{}, ""
		if column, ok := schema.Lookup(path...); ok && len(path) == 1 && column.MaxRepetitionLevel == 0 {
			name, k.used = path[0], true
			k.scale = timeScale(column.Node.Type().LogicalType())
		}
		names, kinds = append(names, name), append(kinds, k)
	}
	return names, kinds
}

func timeScale(t *format.LogicalType) int64 {
	if t == nil {
		return 0
	}
	if timestamp, ok := t.Value.(*format.TimestampType); ok && timestamp.Unit.Value != nil {
		return int64(timestamp.Unit.Value.Duration())
	}
	return 0
}

// groupReader reads the rows of row groups.
type groupReader struct {
	rows   *tableRows
	leaves []leaf
	left   int64 // rows that may come
}

func (g *groupReader) read(group parquet.RowGroup) error {
	reader := group.Rows()
	defer reader.Close()
	buffer := make([]parquet.Row, 64)
	cells := make([]cell, len(g.leaves))
	for {
		n, err := reader.ReadRows(buffer)
		if g.left -= int64(n); g.left < 0 {
			return fault.New(fault.Invalid, "the parquet file has more rows than a file of its size can mean")
		}
		for _, row := range buffer[:n] {
			clear(cells)
			for _, v := range row {
				if i := v.Column(); i >= 0 && i < len(g.leaves) && g.leaves[i].used {
					cells[i] = cellOf(v, g.leaves[i].scale)
				}
			}
			if err := g.rows.row(cells, nil); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errParquet(err)
		}
		if n == 0 {
			return errParquet(io.ErrNoProgress)
		}
	}
}

func cellOf(v parquet.Value, scale int64) cell {
	if v.IsNull() {
		return cell{}
	}
	switch v.Kind() {
	case parquet.Boolean:
		return cell{kind: cellText, text: strconv.FormatBool(v.Boolean())}
	case parquet.Int32:
		return cell{kind: cellNumber, number: float64(v.Int32())}
	case parquet.Int64:
		if scale > 0 {
			if n := v.Int64(); n <= math.MaxInt64/scale && n >= math.MinInt64/scale {
				return cell{kind: cellTime, ns: n * scale}
			}
			return cell{}
		}
		return cell{kind: cellText, text: strconv.FormatInt(v.Int64(), 10)} // no digit is lost
	case parquet.Float:
		return cell{kind: cellNumber, number: float64(v.Float())}
	case parquet.Double:
		return cell{kind: cellNumber, number: v.Double()}
	case parquet.ByteArray, parquet.FixedLenByteArray:
		if s := text(v.ByteArray()); s != "" {
			return cell{kind: cellText, text: s}
		}
	}
	return cell{}
}
