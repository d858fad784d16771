// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// allRows merges by reading all rows into memory and writing them anew.
type allRows struct {
	result  MergeResult
	logs    *columns.Logs
	before  []uint64 // hashes of rows as they were read
	deleted map[DeletedRows]int64
}

func mergeInMemory(ctx context.Context, inputs []MergeInput, o MergeOptions) (MergeResult, error) {
	m := &allRows{logs: columns.NewLogs(), deleted: map[DeletedRows]int64{}}
	for i := range inputs {
		if err := ctx.Err(); err != nil {
			return MergeResult{}, err
		}
		if err := m.read(i, &inputs[i]); err != nil {
			return MergeResult{}, fmt.Errorf("merge %s: %w", inputs[i].Name, err)
		}
	}
	rows := make([]uint32, m.logs.Len())
	for i := range rows {
		rows[i] = uint32(i)
	}
	for _, hash := range m.before {
		m.result.HashLeft += hash
	}
	rows, m.result.Deduplicated = m.logs.DropDoubles(rows)
	after := uint64(0)
	for _, row := range rows {
		hash, before := m.logs.RowHash(int(row)), m.before[row]
		after += hash
		m.result.HashLeft -= before
		if hash != before {
			m.result.Changed++
			m.result.HashBefore += before
			m.result.HashAfter += hash
		}
	}
	m.logs.Sort(rows)
	m.result.RowsOut, m.result.HashOut = int64(len(rows)), after
	for key, n := range m.deleted {
		key.Rows = n
		m.result.DeletedBy = append(m.result.DeletedBy, key)
	}
	slices.SortFunc(m.result.DeletedBy, compareDeleted)
	for len(rows) > 0 {
		n := m.cut(rows, o.TargetBytes)
		if err := m.write(ctx, rows[:n], o); err != nil {
			return MergeResult{}, err
		}
		rows = rows[n:]
	}
	return m.result, m.result.Check()
}

func (m *allRows) read(n int, in *MergeInput) error {
	r, err := OpenLogs(in.Parquet, in.Size)
	if err != nil {
		return err
	}
	l := columns.NewLogs()
	for {
		err := r.Next(l)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	var row columns.LogRow
	for i := range l.Len() {
		l.Row(i, &row)
		m.row(n, in, l, i, &row)
	}
	return nil
}

func (m *allRows) row(n int, in *MergeInput, l *columns.Logs, i int, row *columns.LogRow) {
	hash := l.RowHash(i)
	m.result.RowsIn++
	m.result.HashIn += hash
	labels, origin := l.StreamLabels(row.Stream), l.OriginOf(row.Origin)
	reason, by := in.verdict(labels, origin, row)
	switch reason {
	case ReasonMasked:
		m.result.Masked++
	case ReasonDeleted:
		m.result.Deleted++
		m.deleted[DeletedRows{Delete: by, Source: row.Source, Input: n}]++
	case ReasonExpired:
		m.result.Expired++
	default:
		row.Stream = m.logs.Stream(labels)
		row.Origin = m.logs.Origin(changeOrigin(origin, in.Fields))
		row.Body, row.BodyKind = changeBody(row.Body, row.BodyKind, in.Fields)
		row.Attributes = changeAttributes(row.Attributes, in.Fields)
		m.logs.Append(row)
		m.before = append(m.before, hash)
		return
	}
	m.result.HashLeft += hash
}

func (in *MergeInput) verdict(labels []columns.Label, o columns.Origin, r *columns.LogRow) (Reason, lake.DeleteID) {
	if slices.Contains(in.MaskedSources, r.Source) {
		return ReasonMasked, 0
	}
	for i := range in.Drop {
		d := &in.Drop[i]
		if r.Time >= d.Start && r.Time < d.End && (d.Stream == nil || d.Stream(labels)) && (d.Row == nil || d.Row(labels, o, r)) {
			return d.Reason, d.Delete
		}
	}
	return ReasonNone, 0
}

// cut returns how many rows make the next output, by the bytes of their texts.
func (m *allRows) cut(rows []uint32, target int64) int {
	if target == 0 {
		return len(rows)
	}
	size := int64(0)
	for i, row := range rows {
		r := m.logs.Record(int(row))
		size += int64(r.Body.Len())/5 + 20
		if size >= target {
			return i + 1
		}
	}
	return len(rows)
}

func (m *allRows) write(ctx context.Context, rows []uint32, o MergeOptions) error {
	parquet, sidecar, done, err := o.Create(len(m.result.Outputs))
	if err != nil {
		return err
	}
	meta := o.Meta
	meta.Sources = nil
	for _, row := range rows {
		meta.Sources = append(meta.Sources, m.logs.Record(int(row)).Source)
		if len(meta.Sources) > 1<<12 {
			slices.Sort(meta.Sources)
			meta.Sources = slices.Compact(meta.Sources)
		}
	}
	slices.Sort(meta.Sources)
	meta.Sources = slices.Compact(meta.Sources)
	s, w, err := writeLogs(ctx, parquet, sidecar, m.logs, rows, meta)
	if err != nil {
		return err
	}
	m.result.Outputs = append(m.result.Outputs, Output{Written: w, Sources: meta.Sources, Catalogue: s.catalogue})
	return done()
}
