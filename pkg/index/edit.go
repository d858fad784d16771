// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

const (
	// MaxEditSegments is how many segments one edit may add or remove.
	MaxEditSegments = 10_000
	// maxWindow is the longest window of a segment; Lookup relies on it.
	maxWindow = 24 * time.Hour
	// maxShards is how many parts the series of a window may be in.
	maxShards = 1 << 16
	// Windows before 1970, or further ahead than this, get no partition. That bounds what nonsense can do; which times are accepted is decided
	// before, by each organization's acceptance window, which reaches no further.
	maxFuture = 366 * 24 * time.Hour
)

// checkEdit refuses edits that no lease could make, whatever the database holds.
func checkEdit(lease *lake.Lease, edit lake.Edit, now time.Time) error {
	if len(edit.Add) > MaxEditSegments || len(edit.Remove) > MaxEditSegments || len(edit.Marks) > MaxEditSegments {
		return fmt.Errorf("at most %d segments may be added, as many removed and as many marked", MaxEditSegments)
	}
	for _, s := range edit.Add {
		if err := checkSegment(lease, s, now); err != nil {
			return fmt.Errorf("segment %s: %w", s.Key, err)
		}
	}
	for _, o := range edit.Outcomes {
		if err := checkOutcome(o); err != nil {
			return fmt.Errorf("outcome of receipt %d: %w", o.Receipt, err)
		}
	}
	if err := checkSources(edit, lease.Kind); err != nil {
		return err
	}
	if err := checkExpected(edit.Expect); err != nil {
		return err
	}
	if err := checkRolled(edit); err != nil {
		return err
	}
	if err := checkMarks(edit); err != nil {
		return err
	}
	if err := checkDeleted(edit); err != nil {
		return err
	}
	if c := edit.Cost; min(c.Puts, c.Gets, c.Lists, c.Deletes, c.BytesRead, c.BytesWritten) < 0 {
		return fmt.Errorf("a cost below nothing: %+v", c)
	}
	return checkTasks(edit.Next)
}

func checkSegment(lease *lake.Lease, s lake.Segment, now time.Time) error {
	w := s.Window
	switch {
	case s.Organization != lease.Organization:
		return fmt.Errorf("organization %q, the lease is of %q", s.Organization, lease.Organization)
	case s.Signal == lake.SignalUnknown || s.Signal > lake.SignalSpans:
		return fmt.Errorf("signal %s", s.Signal)
	case !ownedBy(lease.ID, s.Key) || s.Bucket == "":
		return fmt.Errorf("not a key of lease %s", lease.ID)
	case w.Length <= 0 || w.Length > maxWindow || !lake.WindowOf(w.Start, w.Length).Start.Equal(w.Start):
		return fmt.Errorf("window of %s at %s: want one aligned to its length, of a day at most", w.Length, w.Start)
	case w.Start.Unix() < 0 || w.Start.After(now.Add(maxFuture)):
		return fmt.Errorf("window at %s lies outside of any acceptance window", w.Start)
	case !w.Contains(s.FirstTime) || !w.Contains(s.LastTime) || s.LastTime.Before(s.FirstTime):
		return fmt.Errorf("rows from %s to %s do not lie in the window", s.FirstTime, s.LastTime)
	case s.Rows <= 0 || s.Bytes <= 0 || s.SidecarBytes < 0 || s.Level < 0:
		return fmt.Errorf("%d rows, %d bytes, %d sidecar bytes, level %d", s.Rows, s.Bytes, s.SidecarBytes, s.Level)
	case len(s.Sources) == 0 && s.Resolution == 0:
		return fmt.Errorf("no sources")
	case s.Resolution < 0:
		return fmt.Errorf("resolution %s", s.Resolution)
	case s.Shard.Count&(s.Shard.Count-1) != 0 || s.Shard.Count > maxShards || s.Shard.Index >= max(1, s.Shard.Count):
		return fmt.Errorf("shard %d of %d: want one of a power of two, up to %d", s.Shard.Index, s.Shard.Count, maxShards)
	case s.AppliedDelete < 0:
		return fmt.Errorf("applied delete %d", s.AppliedDelete)
	}
	return checkRules(s.Rules)
}

// checkRules refuses names that could not be kept: a list of them is joined by commas on its way.
func checkRules(rules []string) error {
	for _, r := range rules {
		if r == "" || len(r) > 1024 || strings.Contains(r, ",") || !storable(r) {
			return fmt.Errorf("field rule %q: want a name of up to 1,024 bytes without a comma", r)
		}
	}
	return nil
}

// joined is how the rules of one segment go to the database.
func joined(rules []string) string {
	sorted := slices.Clone(rules)
	slices.Sort(sorted)
	return strings.Join(slices.Compact(sorted), ",")
}

func checkMarks(edit lake.Edit) error {
	seen := make(map[lake.SegmentID]bool, len(edit.Marks)+len(edit.Remove))
	for _, id := range edit.Remove {
		seen[id] = true
	}
	for _, m := range edit.Marks {
		if seen[m.Segment] || m.AppliedDelete < 0 {
			return fmt.Errorf("mark of segment %d: it is marked twice or removed, or the applied delete is %d", m.Segment, m.AppliedDelete)
		}
		seen[m.Segment] = true
		if err := checkRules(m.Rules); err != nil {
			return fmt.Errorf("mark of segment %d: %w", m.Segment, err)
		}
	}
	return nil
}

// checkDeleted refuses counts of rows that stay where they are: those of a segment leave it when it is removed.
func checkDeleted(edit lake.Edit) error {
	removed := make(map[lake.SegmentID]bool, len(edit.Remove))
	for _, id := range edit.Remove {
		removed[id] = true
	}
	for _, d := range edit.Deleted {
		if d.Delete <= 0 || d.Source <= 0 || d.Rows <= 0 {
			return fmt.Errorf("%d rows of source %d left out for delete %d", d.Rows, d.Source, d.Delete)
		}
		if d.Segment != 0 && !removed[d.Segment] {
			return fmt.Errorf("rows of segment %d left out for delete %d, but the segment stays", d.Segment, d.Delete)
		}
	}
	return nil
}

// ownedBy reports whether a key lies in a lease's key space.
func ownedBy(lease lake.LeaseID, key string) bool {
	return lake.OwnKey(key) && strings.Contains(key, "/"+string(lease)+"/")
}

func checkOutcome(o lake.Outcome) error {
	switch o.State {
	case lake.ReceiptDone, lake.ReceiptFailed:
	case lake.ReceiptSkipped:
		if o.RowsOut != 0 {
			return fmt.Errorf("skipped with %d rows", o.RowsOut)
		}
	default:
		return fmt.Errorf("state %q", o.State)
	}
	if o.RowsIn < 0 || o.RowsOut < 0 || o.Signal > lake.SignalSpans {
		return fmt.Errorf("%d rows in, %d rows out, signal %d", o.RowsIn, o.RowsOut, o.Signal)
	}
	return nil
}

// checkSources keeps ingest from adding rows of a receipt that it does not finish: they would come twice.
func checkSources(edit lake.Edit, kind lake.TaskKind) error {
	if kind != lake.TaskIngest {
		return nil
	}
	brought := make(map[lake.ReceiptID]bool, len(edit.Outcomes))
	for _, o := range edit.Outcomes {
		brought[o.Receipt] = o.RowsOut > 0
	}
	for _, s := range edit.Add {
		for _, source := range s.Sources {
			if !brought[source] {
				return fmt.Errorf("segment %s holds rows of receipt %d, which this edit does not finish with rows", s.Key, source)
			}
		}
	}
	return nil
}

func checkExpected(expected []lake.WindowVersion) error {
	for _, e := range expected {
		if e.Window.Length <= 0 || e.Window.Length > maxWindow || e.Window.Length%time.Hour != 0 ||
			!lake.WindowOf(e.Window.Start, time.Hour).Start.Equal(e.Window.Start) {
			return fmt.Errorf("the version of a window of %s at %s: want whole hours", e.Window.Length, e.Window.Start)
		}
	}
	return nil
}

// digest tells one edit from another.
func digest(edit lake.Edit) ([]byte, error) {
	b, err := json.Marshal(edit)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	return sum[:], nil
}

// sourcesOf lists all sources of the segments of rows that an edit adds.
func sourcesOf(edit lake.Edit) []int64 {
	var ids []int64
	for _, s := range edit.Add {
		if s.Resolution == 0 {
			ids = append(ids, numbers(s.Sources)...)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// checkInvalid gives what checkEdit says its kind.
func checkInvalid(lease *lake.Lease, edit lake.Edit, now time.Time) error {
	return fault.Wrap(fault.Invalid, checkEdit(lease, edit, now))
}
