// SPDX-License-Identifier: AGPL-3.0-only

package pipeline

import (
	"fmt"
	"strings"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// logSink takes the rows of an object of logs.
type logSink struct {
	*collector
	*logPlane
	accept  acceptance
	streams streamLimit
	// nuls counts bodies with NUL bytes; repaired is what the mapper had repaired before.
	nuls, repaired int64
}

func newLogSink(c *collector) *logSink {
	resolution := c.snapshot.Resolve(c.receipt.Object.Bucket, c.receipt.Object.Key)
	s := &logSink{
		collector: c, logPlane: c.space.logs, accept: newAcceptance(c.limits, c.lease.ClaimedAt), streams: newStreamLimit(c.limits.MaxStreams),
		repaired: c.space.logs.mapper.Repaired,
	}
	s.mapper.SetLabels(c.snapshot.StreamLabels(resolution))
	s.mapper.SetIdentity(identityOf(resolution))
	return s
}

// identityOf is the attribute that identifies rows of an object.
func identityOf(r config.Resolution) string {
	if r.Profile == nil {
		return ""
	}
	return r.Profile.RowIdentity
}

// Origin implements decode.Sink. Its error is that of the next row.
func (s *logSink) Origin(o *columns.Origin) {
	s.signal = lake.SignalLogs
	s.mapper.Origin(o)
	s.step(s.room)
}

// room is makeRoom: streams get other numbers by it.
func (s *logSink) room() error {
	s.streams = newStreamLimit(s.streams.most)
	return s.makeRoom()
}

// Row implements decode.Sink.
func (s *logSink) Row(r *columns.LogRow) error {
	if s.err != nil {
		return s.err
	}
	s.in++
	reason := s.accept.time(r.Time)
	if reason == "" && !s.streams.allows(s.mapper.Stream()) {
		reason = ReasonTooManyStreams
	}
	if reason != "" && len(s.deletes) == 0 {
		return s.rejectRow(reason, r)
	}
	r.Source = s.receipt.ID
	s.mapper.Row(r, s.limits.MaxAttributes)
	if id := s.deletedBy(r); id != 0 {
		s.delete(id)
		return nil
	}
	if reason != "" {
		return s.rejectRow(reason, r)
	}
	if strings.IndexByte(r.Body, 0) >= 0 {
		s.nuls++
	}
	g := s.groupOf(r.Time)
	g.rows = append(g.rows, uint32(s.logs.Len()))
	s.logs.Append(r)
	s.out++
	s.step(s.room)
	return s.err
}

func (s *logSink) rejectRow(reason string, r *columns.LogRow) error {
	s.rejected[reason]++
	s.err = s.rejects.row(reason, s.mapper.CurrentOrigin(), r)
	return s.err
}

// deletedBy returns the delete that a row is left out for; zero: it stays.
func (s *logSink) deletedBy(r *columns.LogRow) lake.DeleteID {
	for i := range s.deletes {
		d := &s.deletes[i]
		if d.reaches(r.Time) && d.rows != nil && d.rows.Row(s.logs.StreamLabels(r.Stream), *s.mapper.CurrentOrigin(), r) {
			return d.id
		}
	}
	return 0
}

// remarks are what a receipt says of rows that stand nevertheless.
func (s *logSink) remarks() (remarks []string) {
	if n := s.mapper.Repaired - s.repaired; n > 0 {
		remarks = append(remarks, fmt.Sprintf("invalid UTF-8 replaced in %d strings", n))
	}
	if s.nuls > 0 {
		remarks = append(remarks, fmt.Sprintf("NUL bytes in %d rows", s.nuls))
	}
	return remarks
}

// streamLimit bounds how many streams one object may bring.
type streamLimit struct {
	most int
	seen map[columns.StreamID]struct{}
	last columns.StreamID
}

func newStreamLimit(most int) streamLimit {
	return streamLimit{most: most, seen: map[columns.StreamID]struct{}{}}
}

func (l *streamLimit) allows(id columns.StreamID) bool {
	if id == l.last && len(l.seen) > 0 {
		return true
	}
	if _, ok := l.seen[id]; !ok {
		if l.most > 0 && len(l.seen) >= l.most {
			return false
		}
		l.seen[id] = struct{}{}
	}
	l.last = id
	return true
}
