// SPDX-License-Identifier: AGPL-3.0-only

package pipeline

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
)

// Reasons for rejected rows, beside the decoders'.
const (
	ReasonTooOld         = "too_old"
	ReasonTooNew         = "too_new"
	ReasonTooManyStreams = "too_many_streams"
	ReasonDeleted        = "deleted" // a delete of data reaches it: it is counted, and kept nowhere
)

// acceptance is which rows an organization takes.
type acceptance struct {
	first, last int64 // ns since 1970, inclusive
	maxStreams  int
	streams     map[columns.StreamID]struct{}
	lastStream  columns.StreamID
}

func newAcceptance(l config.Limits, now time.Time) *acceptance {
	return &acceptance{
		first: now.Add(-l.AcceptPast).UnixNano(), last: now.Add(l.AcceptFuture).UnixNano(),
		maxStreams: l.MaxStreams, streams: map[columns.StreamID]struct{}{},
	}
}

// time gives the reason to reject a row for its time; empty: there is none.
func (a *acceptance) time(ns int64) string {
	switch {
	case ns < a.first:
		return ReasonTooOld
	case ns > a.last:
		return ReasonTooNew
	}
	return ""
}

// stream gives the reason to reject a row for its stream; empty: there is none.
func (a *acceptance) stream(id columns.StreamID) string {
	if id == a.lastStream && len(a.streams) > 0 {
		return ""
	}
	if _, ok := a.streams[id]; !ok {
		if a.maxStreams > 0 && len(a.streams) >= a.maxStreams {
			return ReasonTooManyStreams
		}
		a.streams[id] = struct{}{}
	}
	a.lastStream = id
	return ""
}

// collector takes the rows of one object. Until the object is known to be good they are kept apart from those of others.
type collector struct {
	*run
	ctx     context.Context
	receipt lake.Receipt
	accept  *acceptance
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
	deletes  []deletion
	deleted  map[lake.DeleteID]int64
	nuls     int64
	repaired int64
	// err is an error that is not this object's.
	err error
}

func newCollector(ctx context.Context, r *run, receipt lake.Receipt) *collector {
	resolution := r.snapshot.Resolve(receipt.Object.Bucket, receipt.Object.Key)
	r.space.mapper.SetLabels(r.snapshot.StreamLabels(resolution))
	r.space.mapper.SetIdentity(identityOf(resolution))
	return &collector{
		run: r, ctx: ctx, receipt: receipt, accept: newAcceptance(r.limits, r.lease.ClaimedAt), rows: groups{},
		rejects: newRejects(r.directory, receipt.ID), rejected: map[string]int64{}, repaired: r.space.mapper.Repaired,
		deletes: reaching(r.deletes, receipt), deleted: map[lake.DeleteID]int64{},
	}
}

// identityOf is the attribute that identifies rows of an object.
func identityOf(r config.Resolution) string {
	if r.Profile == nil {
		return ""
	}
	return r.Profile.RowIdentity
}

func (c *collector) close() { c.rejects.close() }

// decode reads the object. A panic of a decoder is the object's failure: it must not take the lease along.
func (c *collector) decode(f fetched) (result decode.Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fault.New(fault.Invalid, "decoding panicked: %v", p)
		}
	}()
	return decode.Decode(f.content, decode.Options{
		ObjectTime: time.Unix(0, f.written), Hint: c.receipt.Signal, MaxLineBytes: c.limits.MaxLineBytes,
		MaxBytes: c.config.MaxObjectBytes, Scratch: &c.space.scratch,
	}, decode.Sinks{Logs: c})
}

// Origin implements decode.Sink. Its error is that of the next row.
func (c *collector) Origin(o *columns.Origin) {
	c.space.mapper.Origin(o)
	c.step()
}

// step makes room now and then, when memory is used up.
func (c *collector) step() {
	c.steps++
	if c.steps%256 == 0 && c.err == nil && c.space.logs.Bytes() > c.config.Memory {
		c.err = c.makeRoom()
	}
}

// Row implements decode.Sink.
func (c *collector) Row(r *columns.LogRow) error {
	if c.err != nil {
		return c.err
	}
	c.in++
	reason := c.accept.time(r.Time)
	if reason == "" {
		reason = c.accept.stream(c.space.mapper.Stream())
	}
	if reason != "" && len(c.deletes) == 0 {
		return c.rejectRow(reason, r)
	}
	r.Source = c.receipt.ID
	c.space.mapper.Row(r, c.limits.MaxAttributes)
	if id := c.deletedBy(r); id != 0 {
		c.rejected[ReasonDeleted]++
		c.deleted[id]++
		return nil
	}
	if reason != "" {
		return c.rejectRow(reason, r)
	}
	if strings.IndexByte(r.Body, 0) >= 0 {
		c.nuls++
	}
	g := c.groupOf(r.Time)
	g.rows = append(g.rows, uint32(c.space.logs.Len()))
	c.space.logs.Append(r)
	c.out++
	c.step()
	return c.err
}

// Reject implements decode.Sink.
func (c *collector) Reject(reason string, raw []byte) error {
	c.in++
	c.rejected[reason]++
	c.err = c.rejects.raw(reason, raw)
	return c.err
}

func (c *collector) rejectRow(reason string, r *columns.LogRow) error {
	c.rejected[reason]++
	c.err = c.rejects.row(reason, c.space.mapper.CurrentOrigin(), r)
	return c.err
}

// groupOf is the group of rows of an event time; rows of one hour mostly come together.
func (c *collector) groupOf(ns int64) *group {
	hour := columns.HourOf(ns)
	if c.last == nil || hour != c.hour {
		c.hour, c.last = hour, c.rows.at(groupKey{bucket: c.receipt.Object.Bucket, hour: hour})
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
	c.space.logs.Reset()
	c.space.mapper.Resume()
	c.accept.streams = map[columns.StreamID]struct{}{}
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

func (c *collector) outcome(result decode.Result) lake.Outcome {
	remarks := []string{}
	if result.Problem != "" {
		remarks = append(remarks, result.Problem)
	}
	if n := c.space.mapper.Repaired - c.repaired; n > 0 {
		remarks = append(remarks, fmt.Sprintf("invalid UTF-8 replaced in %d strings", n))
	}
	if c.nuls > 0 {
		remarks = append(remarks, fmt.Sprintf("NUL bytes in %d rows", c.nuls))
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
