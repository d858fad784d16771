// SPDX-License-Identifier: AGPL-3.0-only

package pipeline

import (
	"context"
	"io"
	"time"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/segfile"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/mapping"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/metricmapping"
)

// plane is where the rows of one signal are in memory until they are written.
type plane interface {
	// bytes is how much memory they take.
	bytes() int64
	// reset forgets the rows; resume does so in the middle of an object, more of whose rows follow. What helps with the rows to come may stay, if it
	// is no more than keep bytes.
	reset(keep int64)
	resume(keep int64)
	// write writes some of the rows as a segment.
	write(ctx context.Context, parquet, sidecar io.Writer, rows []uint32, m meta) (written, error)
}

// meta is what a segment says of itself.
type meta struct {
	organization lake.Organization
	window       lake.Window
	lease        lake.LeaseID
	sources      []lake.ReceiptID
	applied      lake.DeleteID
}

// written is what a segment came to.
type written struct {
	bytes, sidecarBytes, rows int64
	first, last               time.Time
	formatVersion             int
	rowHash                   uint64
	identified                bool
}

// workspace is memory that one lease after the other uses.
type workspace struct {
	logs    *logPlane
	metrics *metricPlane
	scratch decode.Scratch
	// objects counts those that were worked on.
	objects uint64
}

func newWorkspace() *workspace {
	logs, store := columns.NewLogs(), metricfile.NewStore()
	return &workspace{
		logs:    &logPlane{logs: logs, mapper: mapping.New(logs)},
		metrics: &metricPlane{store: store, mapper: metricmapping.New(store)},
	}
}

// plane is that of a signal.
func (s *workspace) plane(signal lake.Signal) plane {
	if signal == lake.SignalMetrics {
		return s.metrics
	}
	return s.logs
}

func (s *workspace) bytes() int64 { return s.logs.bytes() + s.metrics.bytes() }

func (s *workspace) reset(keep int64) {
	s.logs.reset(keep)
	s.metrics.reset(keep)
}

// logPlane holds log rows.
type logPlane struct {
	logs   *columns.Logs
	mapper *mapping.Mapper
}

func (p *logPlane) bytes() int64 { return p.logs.Bytes() }

func (p *logPlane) reset(int64) {
	p.logs.Reset()
	p.mapper.Reset()
}

func (p *logPlane) resume(int64) {
	p.logs.Reset()
	p.mapper.Resume()
}

func (p *logPlane) write(ctx context.Context, parquet, sidecar io.Writer, rows []uint32, m meta) (written, error) {
	p.logs.Sort(rows)
	w, err := segfile.WriteLogs(ctx, parquet, sidecar, p.logs, rows, segfile.Meta{
		Organization: m.organization, Signal: lake.SignalLogs, Window: m.window, Lease: m.lease, Sources: m.sources, AppliedDelete: m.applied,
	})
	return written{
		bytes: w.Bytes, sidecarBytes: w.SidecarBytes, rows: w.Rows, first: w.First, last: w.Last, formatVersion: w.FormatVersion, rowHash: w.RowHash,
		identified: w.Identified,
	}, err
}

// metricPlane holds points of metrics.
type metricPlane struct {
	store  *metricfile.Store
	mapper *metricmapping.Mapper
}

func (p *metricPlane) bytes() int64 { return p.store.Bytes() + p.mapper.Bytes() }

func (p *metricPlane) reset(keep int64) {
	p.store.Reset()
	if p.mapper.Bytes() > keep {
		p.mapper.Forget()
		return
	}
	p.mapper.Reset()
}

func (p *metricPlane) resume(keep int64) {
	p.store.Reset()
	if p.mapper.Bytes() > keep {
		p.mapper.Resume()
		return
	}
	p.mapper.Reset()
}

func (p *metricPlane) write(ctx context.Context, parquet, sidecar io.Writer, rows []uint32, m meta) (written, error) {
	w, err := metricfile.Write(ctx, parquet, sidecar, p.store, rows, metricfile.Meta{
		Organization: m.organization, Signal: lake.SignalMetrics, Window: m.window, Lease: m.lease, Sources: m.sources, AppliedDelete: m.applied,
	})
	return written{
		bytes: w.Bytes, sidecarBytes: w.SidecarBytes, rows: w.Rows, first: w.First, last: w.Last, formatVersion: w.FormatVersion, rowHash: w.RowHash,
	}, err
}
