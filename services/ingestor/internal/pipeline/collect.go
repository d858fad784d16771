// SPDX-License-Identifier: AGPL-3.0-only

package pipeline

import (
	"context"
	"maps"
	"strings"
	"time"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
)

// Reasons for rejected rows, beside those of decoders and mappings.
const (
	ReasonTooOld          = "too_old"
	ReasonTooNew          = "too_new"
	ReasonTooManyStreams  = "too_many_streams"
	ReasonTooManySeries   = "too_many_series"
	ReasonBeyondRetention = "beyond_retention" // points so old that those of their time are gone already: rollups of it can never be right again
	ReasonDeleted         = "deleted"          // a delete of data reaches it: it is counted, and kept nowhere
)

// acceptance is which times an organization takes.
type acceptance struct {
	first, last int64 // ns since 1970, inclusive
	// kept is the time from which on rows are kept; zero: always.
	kept int64
}

func newAcceptance(l config.Limits, now time.Time) acceptance {
	return acceptance{first: max(now.Add(-l.AcceptPast).UnixNano(), 0), last: now.Add(l.AcceptFuture).UnixNano()}
}

// retained makes rows that are older than retention unacceptable; zero: rows are kept for ever.
func (a acceptance) retained(now time.Time, retention time.Duration) acceptance {
	if retention > 0 {
		a.kept = now.Add(-retention).UnixNano()
	}
	return a
}

// time gives the reason to reject a row for its time; empty: there is none.
func (a *acceptance) time(ns int64) string {
	switch {
	case a.kept != 0 && ns < a.kept:
		return ReasonBeyondRetention
	case ns < a.first:
		return ReasonTooOld
	case ns > a.last:
		return ReasonTooNew
	}
	return ""
}

// collector takes the rows of one object. Until the object is known to be good they are kept apart from those of others. What a row is depends on the
// signal: see logSink and metricSink.
type collector struct {
	*run
	ctx     context.Context
	receipt lake.Receipt
	signal  lake.Signal // of the content, once rows come
	rejects *rejects
	rows    groups
	// hour, last and segments are of this object alone.
	hour     int64
	last     *group
	segments []lake.Segment
	// steps counts what may have taken memory: rows and origins.
	steps uint32

	in, out  int64
	rejected map[string]int64
	// deletes are those that may reach the object's rows; deleted counts what they did.
	deletes []deletion
	deleted map[lake.DeleteID]int64
	// err is an error that is not this object's.
	err error
}

func newCollector(ctx context.Context, r *run, receipt lake.Receipt) *collector {
	r.space.objects++
	return &collector{
		run: r, ctx: ctx, receipt: receipt, rows: groups{}, rejects: newRejects(r.directory, receipt.ID), rejected: map[string]int64{},
		deletes: reaching(r.deletes, receipt), deleted: map[lake.DeleteID]int64{},
	}
}

func (c *collector) close() { c.rejects.close() }

// decode reads the object. A panic of a decoder is the object's failure: it must not take the lease along.
func (c *collector) decode(f fetched) (result decode.Result, remarks []string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fault.New(fault.Invalid, "decoding panicked: %v", p)
		}
	}()
	logs, metrics := newLogSink(c), newMetricSink(c)
	result, err = decode.Decode(f.content, decode.Options{
		ObjectTime: time.Unix(0, f.written), Hint: c.receipt.Signal, MaxLineBytes: c.limits.MaxLineBytes,
		MaxBytes: c.config.MaxObjectBytes, Scratch: &c.space.scratch, ScratchDirectory: c.directory,
		Table: tableOf(c.snapshot.MetricsOf(c.lease.Organization), c.receipt.Object.Key),
	}, decode.Sinks{Logs: logs, Metrics: metrics})
	if err == nil && c.err == nil {
		err = metrics.end()
	}
	return result, append(logs.remarks(), metrics.remarks()...), err
}

// step makes room now and then, when memory is used up.
func (c *collector) step(room func() error) {
	c.steps++
	if c.steps%256 == 0 && c.err == nil && c.space.bytes() > c.config.Memory {
		c.err = room()
	}
}

// Reject implements decode.Sink and decode.MetricSink.
func (c *collector) Reject(reason string, raw []byte) error {
	c.in++
	c.rejected[reason]++
	c.err = c.rejects.raw(reason, raw)
	return c.err
}

// delete counts a row that a delete reaches.
func (c *collector) delete(id lake.DeleteID) {
	c.rejected[ReasonDeleted]++
	c.deleted[id]++
}

// groupOf is the group of rows of an event time; rows of one hour mostly come together.
func (c *collector) groupOf(ns int64) *group {
	hour := columns.HourOf(ns)
	if c.last == nil || hour != c.hour {
		c.hour, c.last = hour, c.rows.at(groupKey{signal: c.signal, bucket: c.receipt.Object.Bucket, hour: hour})
		if len(c.last.sources) == 0 {
			c.last.sources = append(c.last.sources, c.receipt.ID)
		}
	}
	return c.last
}

// makeRoom writes what is in memory: the rows of finished objects into segments that stay, those of this one into segments that stay if
// it does.
func (c *collector) makeRoom() error {
	finished, err := c.writer.write(c.ctx, c.finished)
	if err != nil {
		return err
	}
	c.writer.add(finished)
	own, err := c.writer.write(c.ctx, c.rows)
	if err != nil {
		return err
	}
	c.segments = append(c.segments, own...)
	clear(c.finished)
	clear(c.rows)
	c.last = nil
	now, keep := c.space.plane(c.signal), c.config.Memory/keptPart
	for _, p := range []plane{c.space.logs, c.space.metrics} {
		if p == now {
			p.resume(keep)
		} else {
			p.reset(keep)
		}
	}
	return nil
}

// keep makes the object's rows the lease's.
func (c *collector) keep(ctx context.Context) error {
	if err := c.upload(ctx); err != nil {
		return err
	}
	c.finished.merge(c.rows)
	c.writer.add(c.segments)
	return nil
}

// discard forgets the object's rows. What of them is in memory is in no group, and what is in the bucket in no edit.
func (c *collector) discard() { clear(c.rows) }

func (c *collector) upload(ctx context.Context) error {
	if c.rejects.file == nil {
		return nil
	}
	key := lake.RejectsKey(c.lease.Organization, c.lease.ID, c.receipt.ID)
	if err := c.writer.declare(ctx, c.receipt.Object.Bucket, key); err != nil {
		return err
	}
	bucket, err := c.deps.Objects.Bucket(ctx, c.receipt.Object.Bucket)
	if err != nil {
		return bucketError(err)
	}
	return c.rejects.upload(ctx, bucket, key, c.writer)
}

func (c *collector) outcome(result decode.Result, remarks []string) lake.Outcome {
	if result.Problem != "" {
		remarks = append([]string{result.Problem}, remarks...)
	}
	state := lake.ReceiptDone
	if result.Problem != "" && c.in == 0 {
		state = lake.ReceiptFailed
	}
	return lake.Outcome{
		Receipt: c.receipt.ID, State: state, Signal: result.Signal, Format: result.Format, Reason: strings.Join(remarks, "; "),
		RowsIn: c.in, RowsOut: c.out, Rejected: maps.Clone(c.rejected),
	}
}
