// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Commit makes an edit of the lake and ends the lease. Asking again with the same edit, after an answer was lost, is no error.
// fault.Conflict: the lease has ended, or something that the edit relies on is no more; nothing happened.
func (x *Index) Commit(ctx context.Context, lease *lake.Lease, edit lake.Edit) (err error) {
	defer x.observe("commit", &err)()
	if err := x.commit(ctx, lease, edit); err != nil {
		return failed(fmt.Sprintf("commit lease %s", lease.ID), err)
	}
	if kinds := append(kindsOf(edit.Next), lease.Kind); len(edit.Next)+len(edit.Retry) > 0 {
		x.bell.announce(ctx, kinds...)
	}
	return nil
}

func (x *Index) commit(ctx context.Context, lease *lake.Lease, edit lake.Edit) error {
	now, err := x.queries.Now(ctx)
	if err != nil {
		return err
	}
	if err := checkInvalid(lease, edit, now); err != nil {
		return err
	}
	sum, err := digest(edit)
	if err != nil {
		return err
	}
	if err := x.makeMonths(ctx, edit.Add); err != nil {
		return err
	}
	run := func(q *db.Queries) error {
		c := &commit{q: q, lease: lease, edit: edit, digest: sum}
		return c.run(ctx)
	}
	if err = x.inTx(ctx, run); !lacksPartition(err) {
		return err
	}
	// Another process dropped an empty month since it was last seen here.
	x.months.Clear()
	if err := x.makeMonths(ctx, edit.Add); err != nil {
		return err
	}
	return x.inTx(ctx, run)
}

// commit is one transaction of Commit. Rows are locked in one order by all of them: lease, tasks, receipts, segments, versions,
// rollups, new tasks, totals, costs; within each by their key. The last two are the organization's, so they are locked for a moment only.
type commit struct {
	q      *db.Queries
	lease  *lake.Lease
	edit   lake.Edit
	digest []byte

	row     db.LockLeaseRow
	done    []db.LockLeaseTasksRow
	retried []verdict
	// unwanted are tasks among the retried ones whose receipts are superseded, by another commit or by this one.
	unwanted []int64
	hidden   []int64 // receipts that this edit supersedes
	masked   []int64 // sources whose rows must not be answered: the hidden ones, and older ones in segments that are added
	ids      []int64 // of the added segments
	removed  []db.RemoveSegmentsRow
	changed  []db.MaskSourcesRow // segments whose sources were masked
	marked   []db.MarkSegmentsRow
	touched  []touched

	lostRollups   map[rolledWindow]bool // whose segments are removed, and not replaced
	markedRollups map[rolledWindow]bool
	bumps         map[hour]bump // the versions that are locked
	versions      map[hour]db.BumpVersionsRow
}

// touched is a window whose answers this edit changes.
type touched struct {
	signal int16
	start  time.Time
	length int64
	// expired says that retention removes rows, which rollups outlive; partly, that this holds where there are rollups.
	expired, partly bool
}

func (c *commit) run(ctx context.Context) error {
	var err error
	if c.row, err = lockLease(ctx, c.q, c.lease.ID); err != nil {
		return err
	}
	if committed, err := c.stands(); committed || err != nil {
		return err
	}
	steps := []func(context.Context) error{
		c.lockTasks,
		c.lockReceipts,
		c.checkApplied,
		c.removeSegments,
		c.addSegments,
		c.markSegments,
		c.countDeleted,
		c.noteRollups,
		c.finishReceipts,
		c.supersede,
		c.bumpVersions,
		c.roll,
		c.finishTasks,
		c.record,
		c.addTotals,
		c.addCost,
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return endLease(ctx, c.q, string(c.lease.ID), leaseCommitted, c.digest)
}

// stands reports whether this very commit was made before.
func (c *commit) stands() (bool, error) {
	switch {
	case c.row.State == leaseLive && c.row.Organization == string(c.lease.Organization):
		return false, nil
	case c.row.State == leaseLive:
		return false, fault.New(fault.Invalid, "the lease is of another organization")
	case c.row.State != leaseCommitted:
		return false, fault.New(fault.Conflict, "the lease is %s", c.row.State)
	case !bytes.Equal(c.row.Edit, c.digest):
		return false, fault.New(fault.Conflict, "another edit was committed by this lease")
	}
	return true, nil
}

// lockTasks locks the lease's tasks and sorts them into those that are done and those that go back.
func (c *commit) lockTasks(ctx context.Context) error {
	tasks, err := c.q.LockLeaseTasks(ctx, c.row.ID)
	if err != nil {
		return err
	}
	if err := counted("tasks", int(c.row.Tasks), int64(len(tasks))); err != nil {
		return err
	}
	undone := make(map[int64]lake.Retry, len(c.edit.Retry))
	for _, r := range c.edit.Retry {
		undone[int64(r.Task)] = r
	}
	finished := make(map[int64]bool, len(c.edit.Outcomes))
	for _, o := range c.edit.Outcomes {
		finished[int64(o.Receipt)] = true
	}
	outcomes, retries := 0, 0
	for _, t := range tasks {
		why, retry := undone[t.ID]
		switch {
		case retry && finished[t.Receipt] || !retry && t.Receipt != 0 && !finished[t.Receipt]:
			return fault.New(fault.Invalid, "task %d of receipt %d wants either an outcome or a retry", t.ID, t.Receipt)
		case retry:
			retries++
			c.retried = append(c.retried, c.giveBack(t, why))
		default:
			c.done = append(c.done, t)
			if t.Receipt != 0 {
				outcomes++
			}
		}
	}
	if outcomes != len(c.edit.Outcomes) || retries != len(c.edit.Retry) {
		return fault.New(fault.Invalid, "%d outcomes and %d retries are not of this lease, or named twice",
			len(c.edit.Outcomes)-outcomes, len(c.edit.Retry)-retries)
	}
	return nil
}

func (c *commit) giveBack(t db.LockLeaseTasksRow, why lake.Retry) verdict {
	a := accusation{cause: clean(why.Cause), counts: true, guilty: !why.Blameless, delays: true}
	return a.judgeAlone(t, c.row)
}

// lockReceipts locks, in one go, the receipts that the edit finishes, those whose rows they hide, and the sources of segments
// that it adds: so whoever supersedes one of these does it before, and we see it, or after, and finds our segments.
func (c *commit) lockReceipts(ctx context.Context) error {
	var own, hiding []int64
	for _, o := range c.edit.Outcomes {
		own = append(own, int64(o.Receipt))
		if o.State == lake.ReceiptDone || o.RowsOut > 0 {
			hiding = append(hiding, int64(o.Receipt))
		}
	}
	var err error
	if len(hiding) > 0 {
		if c.hidden, err = c.q.HiddenReceipts(ctx, hiding); err != nil {
			return err
		}
	}
	c.hidden = slices.Compact(c.hidden)
	var retried []int64
	for _, v := range c.retried {
		if v.task.Receipt != 0 {
			retried = append(retried, v.task.Receipt)
		}
	}
	states, err := lockStates(ctx, c.q, slices.Concat(own, retried, c.hidden, sourcesOf(c.edit)))
	if err != nil {
		return err
	}
	return c.checkReceipts(states, own)
}

func (c *commit) checkReceipts(states map[int64]lake.ReceiptState, own []int64) error {
	for _, id := range own {
		if states[id] != lake.ReceiptPending {
			return fault.New(fault.Conflict, "receipt %d is %s", id, states[id])
		}
	}
	c.masked = slices.Clone(c.hidden)
	for _, id := range sourcesOf(c.edit) {
		if states[id] == lake.ReceiptSuperseded {
			c.masked = append(c.masked, id)
		}
	}
	// One that another commit superseded since we looked for those to hide needs no second mark.
	c.hidden = slices.DeleteFunc(c.hidden, func(id int64) bool { return states[id] == lake.ReceiptSuperseded })
	for _, v := range c.retried {
		if v.task.Receipt != 0 && (states[v.task.Receipt] != lake.ReceiptPending || slices.Contains(c.hidden, v.task.Receipt)) {
			c.unwanted = append(c.unwanted, v.task.ID)
		}
	}
	return nil
}

func (c *commit) removeSegments(ctx context.Context) error {
	if len(c.edit.Remove) == 0 {
		return nil
	}
	var err error
	c.removed, err = c.q.RemoveSegments(ctx, db.RemoveSegmentsParams{
		Ids:          numbers(c.edit.Remove),
		Organization: string(c.lease.Organization),
		Lease:        string(c.lease.ID),
	})
	if err != nil {
		return err
	}
	for _, r := range c.removed {
		if r.Resolution > 0 {
			if err := c.lost(r); err != nil {
				return err
			}
			continue
		}
		c.touch(touched{signal: r.Signal, start: r.WindowStart, length: r.WindowLength, expired: c.lease.Kind == lake.TaskExpire})
	}
	return counted("segments", len(c.edit.Remove), int64(len(c.removed)))
}

// touch notes a window whose rows change; a rewrite changes none, unless rows are past their retention.
func (c *commit) touch(t touched) {
	t.partly = c.edit.Expired
	if !c.edit.Rewrite || t.partly {
		c.touched = append(c.touched, t)
	}
}

func (c *commit) addSegments(ctx context.Context) error {
	if len(c.edit.Add) == 0 {
		return nil
	}
	var err error
	if c.ids, err = c.q.SegmentIDs(ctx, int32(len(c.edit.Add))); err != nil {
		return err
	}
	segments := db.InsertSegmentsParams{Organization: string(c.lease.Organization), Lease: string(c.lease.ID), Ids: c.ids}
	var sources db.InsertSegmentSourcesParams
	for i, s := range c.edit.Add {
		if s.Resolution == 0 {
			c.touch(touched{signal: int16(s.Signal), start: s.Window.Start, length: int64(s.Window.Length)})
		}
		addSegment(&segments, s)
		addSources(&sources, s, c.ids[i])
	}
	n, err := c.q.InsertSegments(ctx, segments)
	if err != nil {
		return err
	}
	if err := counted("segments", len(c.edit.Add), n); err != nil {
		return err
	}
	n, err = c.q.InsertSegmentSources(ctx, sources)
	if err != nil {
		return err
	}
	return counted("sources", len(sources.Receipts), n)
}

func addSegment(p *db.InsertSegmentsParams, s lake.Segment) {
	p.Signals = append(p.Signals, placeOf(s.Signal, s.Resolution))
	p.WindowStarts = append(p.WindowStarts, s.Window.Start.UTC())
	p.WindowLengths = append(p.WindowLengths, int64(s.Window.Length))
	p.Levels = append(p.Levels, int32(s.Level))
	p.Buckets = append(p.Buckets, s.Bucket)
	p.Keys = append(p.Keys, s.Key)
	p.Bytes = append(p.Bytes, s.Bytes)
	p.SidecarBytes = append(p.SidecarBytes, s.SidecarBytes)
	p.RowCounts = append(p.RowCounts, s.Rows)
	p.FirstTimes = append(p.FirstTimes, s.FirstTime.UnixNano())
	p.LastTimes = append(p.LastTimes, s.LastTime.UnixNano())
	p.FormatVersions = append(p.FormatVersions, int32(s.FormatVersion))
	p.RowHashes = append(p.RowHashes, int64(s.RowHash))
	p.AppliedDeletes = append(p.AppliedDeletes, int64(s.AppliedDelete))
	p.Rules = append(p.Rules, joined(s.Rules))
	p.Identified = append(p.Identified, s.Identified)
	p.Resolutions = append(p.Resolutions, int64(s.Resolution))
	p.ShardIndexes = append(p.ShardIndexes, int32(s.Shard.Index))
	p.ShardCounts = append(p.ShardCounts, int32(s.Shard.Count))
}

// addSources says whose rows a segment holds, and by that where it is. What a rollup is made of may be of any number of sources, and none of
// them is masked in it: it is of none, number 0.
func addSources(p *db.InsertSegmentSourcesParams, s lake.Segment, id int64) {
	sources := slices.Clone(s.Sources)
	if s.Resolution > 0 {
		sources = []lake.ReceiptID{0}
	}
	slices.Sort(sources)
	for _, source := range slices.Compact(sources) {
		p.Receipts = append(p.Receipts, int64(source))
		p.Segments = append(p.Segments, id)
		p.Signals = append(p.Signals, placeOf(s.Signal, s.Resolution))
		p.WindowStarts = append(p.WindowStarts, s.Window.Start.UTC())
	}
}

func (c *commit) finishReceipts(ctx context.Context) error {
	if len(c.edit.Outcomes) == 0 {
		return nil
	}
	var p db.FinishReceiptsParams
	for _, o := range c.edit.Outcomes {
		rejected, err := json.Marshal(cleanKeys(o.Rejected))
		if err != nil {
			return err
		}
		p.Ids = append(p.Ids, int64(o.Receipt))
		p.States = append(p.States, string(o.State))
		p.Signals = append(p.Signals, int16(o.Signal))
		p.Reasons = append(p.Reasons, clean(o.Reason))
		p.Formats = append(p.Formats, clean(o.Format))
		p.RowsIn = append(p.RowsIn, o.RowsIn)
		p.RowsOut = append(p.RowsOut, o.RowsOut)
		p.Rejected = append(p.Rejected, rejected)
	}
	n, err := c.q.FinishReceipts(ctx, p)
	if err != nil {
		return err
	}
	return counted("receipts", len(c.edit.Outcomes), n)
}

func cleanKeys(rejected map[string]int64) map[string]int64 {
	out := make(map[string]int64, len(rejected))
	for reason, rows := range rejected {
		out[clean(reason)] += rows
	}
	return out
}

// supersede marks the hidden receipts, drops their tasks, and masks their rows wherever they are.
func (c *commit) supersede(ctx context.Context) error {
	if len(c.hidden) > 0 {
		n, err := c.q.SupersedeReceipts(ctx, c.hidden)
		if err != nil {
			return err
		}
		if err := counted("receipts", len(c.hidden), n); err != nil {
			return err
		}
		if err := c.q.ForgetReceiptTasks(ctx, c.hidden); err != nil {
			return err
		}
	}
	if len(c.masked) == 0 {
		return nil
	}
	rows, err := c.q.MaskSources(ctx, c.masked)
	if err != nil {
		return err
	}
	c.changed = rows
	if len(c.hidden) == 0 { // only carried masks over into rewritten segments
		return nil
	}
	for _, r := range rows {
		c.touched = append(c.touched, touched{signal: r.Signal, start: r.WindowStart, length: r.WindowLength})
	}
	return nil
}

// hour is a row of window_versions.
type hour struct {
	signal int16
	start  int64 // Unix seconds
}

// bump is what an edit adds to the version of an hour: to the part that rollups are held against, and to the other.
type bump struct {
	increment, quiet int64
	expired          bool
}

// bumpVersions adds one to the version of every hour whose rows change, and checks the versions that the edit relies on. All of
// these rows stay locked until the end.
func (c *commit) bumpVersions(ctx context.Context) error {
	expected := slices.Clone(c.edit.Expect)
	for _, r := range c.edit.Rolled {
		expected = append(expected, lake.WindowVersion{Signal: r.Signal, Window: r.Window, Version: r.Version})
	}
	c.bumps = make(map[hour]bump)
	for _, e := range expected {
		for _, h := range hoursOf(int16(e.Signal), e.Window.Start, int64(e.Window.Length)) {
			c.bumps[h] = bump{}
		}
	}
	counting, err := c.counting(ctx)
	if err != nil {
		return err
	}
	for _, t := range c.touched {
		for _, h := range hoursOf(t.signal, t.start, t.length) {
			b := c.bumps[h]
			if t.expired || t.partly && counting[h] {
				b.quiet, b.expired = 1, true
			} else {
				b.increment = 1
			}
			c.bumps[h] = b
		}
	}
	if len(c.bumps) == 0 {
		return nil
	}
	if err := c.lockVersions(ctx); err != nil {
		return err
	}
	for _, e := range expected {
		var before int64
		for _, h := range hoursOf(int16(e.Signal), e.Window.Start, int64(e.Window.Length)) {
			before += c.versions[h].Version + c.versions[h].Quiet - c.bumps[h].increment - c.bumps[h].quiet
		}
		if before != e.Version {
			return fault.New(fault.Conflict, "%s at %s have version %d, the edit was made from %d", e.Signal, e.Window.Start, before, e.Version)
		}
	}
	return nil
}

// counting are the hours that lose some of their rows by retention, and whose rollups go on counting these. Other hours are as if they had never had them.
func (c *commit) counting(ctx context.Context) (map[hour]bool, error) {
	bySignal := make(map[int16][]time.Time)
	for _, t := range c.touched {
		if t.partly && !t.expired {
			for _, h := range hoursOf(t.signal, t.start, t.length) {
				bySignal[h.signal] = append(bySignal[h.signal], time.Unix(h.start, 0).UTC())
			}
		}
	}
	found := make(map[hour]bool)
	for signal, hours := range bySignal {
		rolled, err := c.q.HoursRolledUp(ctx, db.HoursRolledUpParams{
			Organization: string(c.lease.Organization), Signal: signal, Hours: hours, Resolutions: nanosecondsOf(Resolutions()),
		})
		if err != nil {
			return nil, err
		}
		for _, h := range rolled {
			found[hour{signal, h.Unix()}] = true
		}
	}
	return found, nil
}

func (c *commit) lockVersions(ctx context.Context) error {
	p := db.BumpVersionsParams{Organization: string(c.lease.Organization)}
	for h, b := range c.bumps {
		p.Signals = append(p.Signals, h.signal)
		p.Hours = append(p.Hours, time.Unix(h.start, 0).UTC())
		p.Increments = append(p.Increments, b.increment)
		p.Quiets = append(p.Quiets, b.quiet)
		p.Expired = append(p.Expired, b.expired)
	}
	rows, err := c.q.BumpVersions(ctx, p)
	if err != nil {
		return err
	}
	c.versions = make(map[hour]db.BumpVersionsRow, len(rows))
	for _, r := range rows {
		c.versions[hour{r.Signal, r.Hour.Unix()}] = r
	}
	return nil
}

// hoursOf lists the hours that a window overlaps.
func hoursOf(signal int16, start time.Time, length int64) []hour {
	var hours []hour
	end := start.Add(time.Duration(length))
	for h := lake.WindowOf(start, time.Hour); h.Start.Before(end); h.Start = h.End() {
		hours = append(hours, hour{signal, h.Start.Unix()})
	}
	return hours
}

// finishTasks drops the tasks that are done, gives back those to be retried, done ones that were asked for anew, and enqueues what follows.
func (c *commit) finishTasks(ctx context.Context) error {
	drop := c.unwanted
	back := slices.DeleteFunc(c.retried, func(v verdict) bool { return slices.Contains(c.unwanted, v.task.ID) })
	for _, t := range c.done {
		if t.Again {
			back = append(back, verdict{task: t, anew: true})
			continue
		}
		drop = append(drop, t.ID)
	}
	if err := finishTasks(ctx, c.q, c.row.ID, drop); err != nil {
		return err
	}
	slices.SortFunc(back, func(a, b verdict) int { return cmp.Compare(a.task.ID, b.task.ID) })
	if err := giveBack(ctx, c.q, c.row.ID, back); err != nil {
		return err
	}
	return enqueue(ctx, c.q, c.edit.Next)
}

// record puts the rows that changed into the outbox, and counts what was removed for the run of retention that it was for.
func (c *commit) record(ctx context.Context) error {
	r := changes{cause: string(c.lease.ID), kind: string(c.lease.Kind), organization: c.lease.Organization, edit: c.digest}
	for i, s := range c.edit.Add {
		r.hold(c.ids[i], s.Window.Start)
	}
	for _, s := range c.changed {
		r.hold(s.ID, s.WindowStart)
	}
	for _, s := range c.marked {
		r.hold(s.ID, s.WindowStart)
	}
	var removed db.CountRemovedParams
	for _, s := range c.removed {
		r.hold(s.ID, s.WindowStart)
		removed.Segments++
		removed.Rows += s.RowCount
		removed.Bytes += s.Bytes + s.SidecarBytes
	}
	for h := range c.bumps {
		r.hours = append(r.hours, h)
	}
	for _, rolled := range c.edit.Rolled {
		r.rollups = append(r.rollups, rolledOf(rolled))
	}
	for _, others := range []map[rolledWindow]bool{c.lostRollups, c.markedRollups} {
		r.rollups = slices.AppendSeq(r.rollups, maps.Keys(others))
	}
	r.receipts = slices.Clone(c.hidden)
	for _, o := range c.edit.Outcomes {
		r.receipts = append(r.receipts, int64(o.Receipt))
	}
	if err := putRecord(ctx, c.q, r); err != nil {
		return err
	}
	if c.lease.Kind != lake.TaskExpire {
		return nil
	}
	removed.Lease = string(c.lease.ID)
	return c.q.CountRemoved(ctx, removed)
}

// month is a partition of segments.
type month struct {
	parent string
	year   int
	month  time.Month
}

// parentOf is the table whose months a segment is in.
func parentOf(s lake.Segment) string {
	if s.Resolution > 0 {
		return rollupsTable
	}
	return tableOf(s.Signal)
}

func tableOf(signal lake.Signal) string { return "segments_" + signal.String() }

const rollupsTable = "segments_rollups"

// makeMonths sees to the partitions before the transaction: making one is a transaction of its own, and rare.
func (x *Index) makeMonths(ctx context.Context, add []lake.Segment) error {
	for _, s := range add {
		start := s.Window.Start.UTC()
		m := month{parentOf(s), start.Year(), start.Month()}
		if _, known := x.months.Load(m); known {
			continue
		}
		err := x.queries.MakeSegmentMonth(ctx, db.MakeSegmentMonthParams{Parent: m.parent, MonthStart: start})
		if err != nil {
			return fmt.Errorf("make the partition of %s of %d-%02d: %w", m.parent, m.year, m.month, err)
		}
		x.months.Store(m, true)
	}
	return nil
}
