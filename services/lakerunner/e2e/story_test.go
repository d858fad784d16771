// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
)

// shape is how much of an object's rows an answer may have.
type shape uint8

const (
	absent  shape = 1 << iota // no row
	whole                     // every row
	spared                    // every row but those that the delete chooses
	anyHalf = whole | spared
)

// unit is one object of a story. Its rows are in one hour and ingested by one commit, so they come and go together.
type unit struct {
	name   string
	object sample.Object
	// doomed are those of its rows that the story's delete chooses.
	doomed map[string]bool
	// allowed are the shapes that are right at this moment. It only ever changes by widen and narrow.
	allowed shape
	// there says that all answers that began after some moment had to have it, until something else was allowed.
	there bool
}

// plot is what is known about the rows of a story. Answers are held to it while the story goes on.
type plot struct {
	start, end time.Time
	units      []*unit
	// either are pairs of which one replaces the other: answers have one of them at most, and exactly one once the first was there.
	either [][2]*unit

	mu     sync.Mutex
	asking map[*question]bool
}

// question is an answer under way: what is allowed to it is what was allowed at any time while it was made.
type question struct {
	allowed map[*unit]shape
	there   map[*unit]bool // when it began
}

func newPlot(start, end time.Time, units ...*unit) *plot {
	return &plot{start: start, end: end, units: units, asking: map[*question]bool{}}
}

// newUnit makes an object's unit; chosen are the rows that the story's delete chooses.
func newUnit(name string, o sample.Object, chosen func(sample.Row) bool) *unit {
	u := &unit{name: name, object: o, doomed: map[string]bool{}, allowed: absent}
	for _, r := range o.Rows {
		if chosen(r) {
			u.doomed[rowKey(r.Time, r.Service, r.Line)] = true
		}
	}
	return u
}

func rowKey(at time.Time, service, line string) string {
	return at.UTC().Format(time.RFC3339Nano) + "\x00" + service + "\x00" + line
}

// widen allows more, before something is done that makes it so.
func (p *plot) widen(u *unit, s shape) {
	p.mu.Lock()
	defer p.mu.Unlock()
	u.allowed |= s
	for q := range p.asking {
		q.allowed[u] |= s
	}
}

// narrow allows this alone, after it was seen to be so.
func (p *plot) narrow(u *unit, s shape) {
	p.mu.Lock()
	defer p.mu.Unlock()
	u.allowed = s
	u.there = u.there || s&absent == 0
}

func (p *plot) begin() *question {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := &question{allowed: map[*unit]shape{}, there: map[*unit]bool{}}
	for _, u := range p.units {
		q.allowed[u], q.there[u] = u.allowed, u.there
	}
	p.asking[q] = true
	return q
}

func (p *plot) finish(q *question) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.asking, q)
}

// judge says what is wrong with an answer.
func (p *plot) judge(q *question, lines []*queryv1.LogLine) error {
	got := map[string]int{}
	for _, line := range lines {
		got[rowKey(line.GetTime().AsTime(), line.GetLabels()["service_name"], line.GetLine())]++
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	found := map[*unit]shape{}
	rows := 0
	for _, u := range p.units {
		s, n, err := u.shapeIn(got)
		if err != nil {
			return err
		}
		if s&q.allowed[u] == 0 {
			return fmt.Errorf("of %s the answer has %d of %d rows, %d of them deleted ones; allowed is %03b", u.name, n, len(u.object.Rows), len(u.doomed), q.allowed[u])
		}
		found[u], rows = s, rows+n
	}
	if rows != len(lines) {
		return fmt.Errorf("the answer has %d rows, %d of them are nobody's", len(lines), len(lines)-rows)
	}
	for _, pair := range p.either {
		if found[pair[0]]&absent == 0 && found[pair[1]]&absent == 0 {
			return fmt.Errorf("the answer has rows of %s and of %s, which replaces it", pair[0].name, pair[1].name)
		}
		if found[pair[0]] == absent && found[pair[1]] == absent && q.there[pair[0]] {
			return fmt.Errorf("the answer has rows neither of %s nor of %s, which replaces it", pair[0].name, pair[1].name)
		}
	}
	return nil
}

// shapeIn finds the unit in an answer. A unit without doomed rows has two shapes at once.
func (u *unit) shapeIn(got map[string]int) (s shape, rows int, err error) {
	doomed, others := 0, 0
	for _, r := range u.object.Rows {
		key := rowKey(r.Time, r.Service, r.Line)
		switch n := got[key]; {
		case n > 1:
			return 0, 0, fmt.Errorf("a row of %s is there %d times", u.name, n)
		case n == 1 && u.doomed[key]:
			doomed++
		case n == 1:
			others++
		}
	}
	if doomed == 0 && others == 0 {
		s |= absent
	}
	if doomed == len(u.doomed) && others == len(u.object.Rows)-len(u.doomed) {
		s |= whole
	}
	if doomed == 0 && others == len(u.object.Rows)-len(u.doomed) {
		s |= spared
	}
	if s == 0 {
		return 0, 0, fmt.Errorf("of %s the answer has %d of %d rows, and %d of %d that the delete chooses", u.name,
			doomed+others, len(u.object.Rows), doomed, len(u.doomed))
	}
	return s, doomed + others, nil
}

// ask asks once, and judges the answer. An error of the query is no wrong answer: answered is false then.
func (p *plot) ask(ctx context.Context, l *lake) (answered bool, wrong error) {
	q := p.begin()
	defer p.finish(q)
	began := time.Now()
	lines, statistics, err := l.tryLinesAndStatistics(ctx, everything, p.start, p.end)
	if err != nil {
		return false, err
	}
	if err := p.judge(q, lines); err != nil {
		return true, fmt.Errorf("%w; asked at %s, answered at %s: %v", err, began.Format(time.TimeOnly+".000"), time.Now().Format(time.TimeOnly+".000"), statistics)
	}
	return true, nil
}

// follow asks until ctx ends, and keeps the first wrong answer.
func (p *plot) follow(ctx context.Context, l *lake) (asked int, wrong error) {
	for ctx.Err() == nil {
		answered, err := p.ask(ctx, l)
		if answered {
			asked++
		}
		if answered && err != nil {
			return asked, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(150 * time.Millisecond):
		}
	}
	return asked, nil
}

// tryLines asks a log query that has fewer than 5,000 lines.
func (l *lake) tryLines(ctx context.Context, query string, start, end time.Time) ([]*queryv1.LogLine, error) {
	lines, _, err := l.tryLinesAndStatistics(ctx, query, start, end)
	return lines, err
}

// tryLinesAndStatistics takes an answer only if it ends with its statistics.
func (l *lake) tryLinesAndStatistics(ctx context.Context, query string, start, end time.Time) ([]*queryv1.LogLine, *queryv1.Statistics, error) {
	const limit = 5000
	stream, err := l.query.QueryLogs(withKey(ctx, l.keys["default"]), &queryv1.QueryLogsRequest{
		Query: query, Start: timestamppb.New(start), End: timestamppb.New(end), Limit: limit, Direction: queryv1.Direction_DIRECTION_FORWARD,
	})
	if err != nil {
		return nil, nil, err
	}
	var lines []*queryv1.LogLine
	var statistics *queryv1.Statistics
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) && statistics == nil {
			return nil, nil, errors.New("the answer ended without its statistics")
		}
		if errors.Is(err, io.EOF) {
			return lines, statistics, nil
		}
		if err != nil {
			return nil, nil, err
		}
		if s := part.GetStatistics(); s != nil {
			statistics = s
		}
		if s := part.GetStatistics(); s.GetPartial() {
			return nil, nil, fmt.Errorf("partial: %s", s.GetPartialReason())
		}
		if lines = append(lines, part.GetLines()...); len(lines) >= limit {
			return nil, nil, errors.New("the answer is longer than the test can compare")
		}
	}
}

// ownFile reports whether a key below db/ is kept by design, whatever segments there are.
func ownFile(key string) bool {
	for _, folder := range []string{"records", "snapshots", "redacted", "rejects", "certificates"} {
		if strings.HasPrefix(key, "db/default/"+folder+"/") {
			return true
		}
	}
	return false
}
