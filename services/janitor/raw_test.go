// SPDX-License-Identifier: AGPL-3.0-only

package janitor_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
)

const (
	expire = ", raw: {action: expire, after: 1s}"
	move   = ", raw: {action: move, after: 1s, class: STANDARD_IA}"
)

// done is the receipt of an object that was ingested and written long ago.
func (l *lab) done() lake.Receipt {
	l.Helper()
	l.segment(0)
	receipts, _, err := l.index.Receipts(l.Context(), index.ReceiptQuery{Organization: acme, State: lake.ReceiptDone})
	if err != nil || len(receipts) == 0 {
		l.Fatalf("receipts %v, %v", receipts, err)
	}
	l.old()
	return receipts[0]
}

// old makes all objects old.
func (l *lab) old() {
	l.Helper()
	l.sql("UPDATE receipts SET written_at = written_at - interval '1 hour', last_modified = last_modified - interval '1 hour'")
}

func TestRaw(t *testing.T) {
	t.Parallel()

	t.Run("W1: what is done is deleted, what waits stays", func(t *testing.T) {
		t.Parallel()
		l := setup(t, settings{profile: expire})
		done := l.done()
		waiting := l.receive(l.object("logs-raw/acme/waiting.log"))[0]
		l.old()
		dry := must(l, l.api.ManageRawObjects)(&janitorv1.ManageRawObjectsRequest{ValidateOnly: true})
		if dry.GetExpired() != 1 || dry.GetExpiredBytes() != done.Object.Size || dry.GetKept() != 1 || len(l.files("logs-raw/")) != 2 {
			t.Fatalf("dry run: %v", dry)
		}
		if got := must(l, l.api.ManageRawObjects)(&janitorv1.ManageRawObjectsRequest{}); got.GetExpired() != 1 || got.GetKept() != 1 {
			t.Fatalf("got %v", got)
		}
		if left := l.files("logs-raw/"); len(left) != 1 || left[0] != waiting.Object.Key {
			t.Errorf("left: %v", left)
		}
		if raw := l.receipt(done.ID).Raw; raw != lake.RawExpired {
			t.Errorf("raw is %q", raw)
		}
	})

	t.Run("W1: a replay that waits keeps its object", func(t *testing.T) {
		t.Parallel()
		l := setup(t, settings{profile: expire})
		done := l.done()
		if n, _, err := l.index.Replay(t.Context(), index.ReplayQuery{Organization: acme, Receipts: []lake.ReceiptID{done.ID}}); err != nil || n != 1 {
			t.Fatalf("replay: %d, %v", n, err)
		}
		got := must(l, l.api.ManageRawObjects)(&janitorv1.ManageRawObjectsRequest{})
		if got.GetExpired() != 0 || len(l.files("logs-raw/")) != 1 {
			t.Errorf("got %v", got)
		}
	})

	t.Run("W2: a newer version of an object stays", func(t *testing.T) {
		t.Parallel()
		l := setup(t, settings{profile: expire})
		done := l.done()
		newer := l.object(done.Object.Key)
		must(l, l.api.ManageRawObjects)(&janitorv1.ManageRawObjectsRequest{})
		if head, err := l.bucket.Head(t.Context(), newer.Key); err != nil || head.Tag != newer.Tag {
			t.Errorf("head: %+v, %v", head, err)
		}
	})

	for _, step := range []string{"", "raw-copied"} {
		t.Run(strings.TrimSpace("W3, W4: a moved object is the same object "+step), func(t *testing.T) {
			t.Parallel()
			l := setup(t, settings{profile: move})
			done := l.done()
			if l.crash = step; step != "" {
				if _, err := l.api.ManageRawObjects(l.ctx, &janitorv1.ManageRawObjectsRequest{}); err == nil {
					t.Fatal("it did not crash")
				}
				l.sql("UPDATE tasks SET not_before = now()")
			}
			if got := must(l, l.api.ManageRawObjects)(&janitorv1.ManageRawObjectsRequest{}); got.GetMoved() != 1 || got.GetMovedBytes() != done.Object.Size {
				t.Fatalf("got %v", got)
			}
			head, err := l.bucket.Head(t.Context(), done.Object.Key)
			if err != nil || head.MovedFrom != done.Object.Tag {
				t.Fatalf("head: %+v, %v", head, err)
			}
			receipt := l.receipt(done.ID)
			if receipt.Raw != lake.RawMoved || receipt.Object.Tag != head.Tag {
				t.Errorf("receipt: %+v", receipt)
			}
			// The event of the copy brings no second receipt.
			copied := done.Object
			copied.Tag = head.Tag
			if again := l.receive(copied)[0]; again.ID != done.ID {
				t.Errorf("the copy got receipt %d", again.ID)
			}
			if again := must(l, l.api.ManageRawObjects)(&janitorv1.ManageRawObjectsRequest{}); again.GetMoved() != 0 {
				t.Errorf("again: %v", again)
			}
		})
	}

	t.Run("W4: a crash after the delete is made good", func(t *testing.T) {
		t.Parallel()
		l := setup(t, settings{profile: expire})
		done := l.done()
		l.crash = "raw-deleted"
		if _, err := l.api.ManageRawObjects(l.ctx, &janitorv1.ManageRawObjectsRequest{}); err == nil {
			t.Fatal("it did not crash")
		}
		if _, err := l.bucket.Head(t.Context(), done.Object.Key); !errors.Is(err, fault.NotFound) {
			t.Fatalf("head: %v", err)
		}
		l.sql("UPDATE tasks SET not_before = now()")
		must(l, l.api.ManageRawObjects)(&janitorv1.ManageRawObjectsRequest{})
		if raw := l.receipt(done.ID).Raw; raw != lake.RawExpired {
			t.Errorf("raw is %q", raw)
		}
	})
}

func TestUpkeep(t *testing.T) {
	t.Parallel()
	l := setup(t, settings{})
	l.segment(0)
	dry := must(l, l.api.MaintainIndex)(&janitorv1.MaintainIndexRequest{ValidateOnly: true})
	again := must(l, l.api.MaintainIndex)(&janitorv1.MaintainIndexRequest{ValidateOnly: true})
	if len(dry.GetPartitionsMade()) != len(again.GetPartitionsMade()) {
		t.Errorf("a dry run made partitions: %v, then %v", dry.GetPartitionsMade(), again.GetPartitionsMade())
	}
	made := must(l, l.api.MaintainIndex)(&janitorv1.MaintainIndexRequest{})
	if len(made.GetPartitionsMade()) != len(dry.GetPartitionsMade()) || len(made.GetTables()) == 0 || l.live() != 1 {
		t.Errorf("made %v, tables %v", made.GetPartitionsMade(), made.GetTables())
	}
	if rest := must(l, l.api.MaintainIndex)(&janitorv1.MaintainIndexRequest{}); len(rest.GetPartitionsMade()) != 0 {
		t.Errorf("once more: %v", rest.GetPartitionsMade())
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	l := setup(t, settings{organization: keepMonth, profile: ", prices: {storage: 1, put: 0, get: 0, list: 0, head: 0, delete: 0}"})
	old, s := l.segment(60*day), l.segment(day)
	l.receive(l.object("logs-raw/acme/waiting.log"))
	must(l, l.api.RunRetention)(&janitorv1.RunRetentionRequest{})
	got := must(l, l.api.GetStatus)(&janitorv1.GetStatusRequest{}).GetOrganizations()
	if len(got) != 1 {
		t.Fatalf("got %v", got)
	}
	status := got[0]
	if status.GetSegments().GetSegments() != 1 || status.GetSegments().GetBytes() != s.Bytes+s.SidecarBytes || status.GetDebt().GetSegments() != 1 {
		t.Errorf("segments %v, debt %v", status.GetSegments(), status.GetDebt())
	}
	if status.GetRemoved().GetSegments() != 1 || status.GetRemoved().GetBytes() != old.Bytes+old.SidecarBytes || status.GetReceipts()["pending"] != 1 {
		t.Errorf("removed %v, receipts %v", status.GetRemoved(), status.GetReceipts())
	}
	if status.GetLastRetention().GetRemoved().GetSegments() != 1 || status.GetIngestLag() == nil || status.GetRecordsToShip() == 0 {
		t.Errorf("got %v", status)
	}
	want := float64(s.Bytes+s.SidecarBytes+status.GetRemoved().GetBytes()+status.GetRawBytes()) / 1e9
	if status.GetRawBytes() == 0 || status.GetDollarsPerMonth() < 0.999*want || status.GetDollarsPerMonth() > 1.001*want {
		t.Errorf("%v dollars of %d raw bytes, want %v", status.GetDollarsPerMonth(), status.GetRawBytes(), want)
	}
}
