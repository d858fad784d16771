// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"fmt"
	"io"

	"github.com/parquet-go/parquet-go"

	"github.com/lakerunner/lakerunner/pkg/columns"
)

// ReadCatalogue reads what a segment holds from its Parquet file.
func ReadCatalogue(r io.ReaderAt, size int64) (*Catalogue, error) {
	file, err := openParquet(r, size)
	if err != nil {
		return nil, err
	}
	return catalogueOf(file, r, size)
}

func openParquet(r io.ReaderAt, size int64) (file *parquet.File, err error) {
	defer damagedPanic(&err) // of parquet-go
	file, err = parquet.OpenFile(r, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, fmt.Errorf("read footer of segment: %w", err)
	}
	return file, nil
}

func catalogueOf(file *parquet.File, r io.ReaderAt, size int64) (*Catalogue, error) {
	place, ok := file.Lookup(metadataCatalogue)
	if !ok {
		return nil, fmt.Errorf("a Parquet file, but not a segment: no %s in its footer", metadataCatalogue)
	}
	var offset, length int64
	if _, err := fmt.Sscan(place, &offset, &length); err != nil || offset < 0 || length < 0 || offset > size-length {
		return nil, errDamaged
	}
	compressed := make([]byte, length)
	if _, err := r.ReadAt(compressed, offset); err != nil && err != io.EOF {
		return nil, fmt.Errorf("read catalogue of segment: %w", err)
	}
	return unmarshalCatalogue(compressed)
}

// LogReader reads the rows of a segment, a row group at a time.
type LogReader struct {
	source *mergeSource
	row    columns.LogRow
}

// OpenLogs begins to read a segment's Parquet file.
func OpenLogs(r io.ReaderAt, size int64) (*LogReader, error) {
	m, err := newMerger([]MergeInput{{Parquet: r, Size: size}}, MergeOptions{})
	if err != nil {
		return nil, err
	}
	return &LogReader{source: m.sources[0]}, nil
}

// Catalogue returns what the segment holds.
func (r *LogReader) Catalogue() *Catalogue { return r.source.catalogue }

// Next appends the next row group's rows to l, in their order, and returns io.EOF after the last. A row's attributes come sorted by
// name and kind.
func (r *LogReader) Next(l *columns.Logs) error {
	s := r.source
	if s.group+1 == s.chunks.Groups() {
		return io.EOF
	}
	if err := s.load(s.group + 1); err != nil {
		return err
	}
	var streams []columns.StreamID
	for i := range s.catalogue.Streams {
		streams = append(streams, l.Stream(s.catalogue.Streams[i].Labels))
	}
	var origins []columns.OriginID
	for i := range s.catalogue.Origins {
		origins = append(origins, l.Origin(s.catalogue.Origins[i]))
	}
	for row := range s.rows {
		s.fill(row, &r.row)
		r.row.Stream, r.row.Origin = streams[s.numbers[columnStream][row]], origins[s.numbers[columnOrigin][row]]
		l.Append(&r.row)
	}
	return nil
}
