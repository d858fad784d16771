// SPDX-License-Identifier: AGPL-3.0-only

package pipeline_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

func deleteOf(id lake.DeleteID, selector string, start, end, created time.Time) lake.Delete {
	return lake.Delete{ID: id, Organization: "acme", Signal: lake.SignalLogs, Selector: selector, Start: start, End: end, CreatedAt: created}
}

// TestDeletedRowsAreNotIngested holds that a delete reaches the objects that were received before it, and no others.
func TestDeletedRowsAreNotIngested(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	at := benchTime()
	old := f.put("logs-raw/acme/c/old", lines("eve", 100, at, time.Second))
	recent := f.put("logs-raw/acme/c/new", lines("eve", 100, at, time.Second))
	recent.ReceivedAt = at.Add(time.Hour)
	f.accounts.deletes = []lake.Delete{
		deleteOf(3, `{service_name=~".+"} |~ "eve (1|2)"`, at, at.Add(50*time.Second), at.Add(time.Minute)),
		deleteOf(4, `{service_name="nobody"}`, at, at.Add(time.Hour), at.Add(time.Minute)),
		{ID: 9, Signal: lake.SignalMetrics, Selector: `{service_name=~".+"}`, CreatedAt: at.Add(time.Hour)},
	}
	edit := f.work(old, recent)
	rows := f.rows(edit.Add)
	const reached = 1 + 10 + 1 + 10 // 1, 10-19, 2, 20-29
	if len(rows[old.ID]) != 100-reached || len(rows[recent.ID]) != 100 {
		t.Errorf("%d and %d rows are left", len(rows[old.ID]), len(rows[recent.ID]))
	}
	want := []lake.DeletedRows{{Delete: 3, Source: old.ID, Rows: reached}}
	if diff := cmp.Diff(want, edit.Deleted); diff != "" {
		t.Error(diff)
	}
	if o := outcomes(edit)[old.ID]; o.RowsIn != 100 || o.RowsOut != 100-reached || o.Rejected["deleted"] != reached {
		t.Errorf("%+v", o)
	}
	for _, s := range edit.Add {
		if s.AppliedDelete != 9 {
			t.Errorf("deletes up to %d were applied, want 9", s.AppliedDelete)
		}
	}
}

func TestDeletedRowsAreNotKeptAsRejectedOnes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	at := time.Date(1970, 1, 2, 0, 0, 0, 0, time.UTC) // too old to be taken
	receipt := f.put("logs-raw/acme/c/a", slices.Concat(lines("eve", 5, at, time.Second), lines("bob", 5, at, time.Second)))
	f.accounts.deletes = []lake.Delete{deleteOf(1, `{service_name=~".+"} |= "eve"`, at, at.Add(time.Hour), benchTime())}
	lease := f.lease(receipt)
	edit, err := f.worker.Work(context.Background(), lease)
	if err != nil {
		t.Fatal(err)
	}
	kept := gunzip(t, f.read(lake.RejectsKey("acme", lease.ID, receipt.ID)))
	if bytes.Contains(kept, []byte("Z eve ")) || bytes.Count(kept, []byte("bob")) == 0 {
		t.Errorf("kept %s", kept)
	}
	if o := outcomes(edit)[receipt.ID]; o.Rejected["deleted"] != 5 || o.Rejected["too_old"] != 5 {
		t.Errorf("%+v", o)
	}
}

// TestFoldersAreDeclaredBeforeFilesArePut holds that what a dead lease leaves behind is known.
func TestFoldersAreDeclaredBeforeFilesArePut(t *testing.T) {
	t.Parallel()
	content := slices.Concat(lines("x", 30, benchTime(), time.Hour), []byte("1970-01-01T00:00:00Z old\n"))
	t.Run("each once", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		lease := f.lease(f.put("logs-raw/acme/c/a", content))
		edit, err := f.worker.Work(context.Background(), lease)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range edit.Add {
			folder := s.Bucket + "/" + s.Key[:strings.LastIndex(s.Key, "/")+1]
			if n := countOf(f.accounts.folders, folder); n != 1 {
				t.Errorf("%s was declared %d times", folder, n)
			}
		}
		if rejects := fmt.Sprintf("%s/db/acme/rejects/%s/", bucketName, lease.ID); countOf(f.accounts.folders, rejects) != 1 {
			t.Errorf("%s was not declared: %v", rejects, f.accounts.folders)
		}
	})
	t.Run("and nothing is put when the lease has ended", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		f.accounts.denied = fault.New(fault.Conflict, "the lease has ended")
		if _, err := f.worker.Work(context.Background(), f.lease(f.put("logs-raw/acme/c/a", content))); !errors.Is(err, fault.Conflict) {
			t.Errorf("got %v", err)
		}
		for object, err := range f.bucket.List(context.Background(), lake.Prefix, "") {
			t.Errorf("%s was put, %v", object.Key, err)
		}
	})
}

func countOf(all []string, one string) (n int) {
	for _, s := range all {
		if s == one {
			n++
		}
	}
	return n
}

func TestRowsHaveTheProfilesIdentity(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	with := f.put("logs-raw/acme/c/a.json", []byte(`{"time":"`+benchTime().Format(time.RFC3339)+`","event.id":"e1","msg":"x"}`+"\n"))
	without := f.put("logs-raw/acme/c/b.json", []byte(`{"time":"`+benchTime().Add(2*time.Hour).Format(time.RFC3339)+`","msg":"x"}`+"\n"))
	edit := f.work(with, without)
	for _, s := range edit.Add {
		if want := s.Sources[0] == with.ID; s.Identified != want {
			t.Errorf("segment of %v: identified %t", s.Sources, s.Identified)
		}
	}
}

func TestCompactionAndRollupsAreAskedForEachWindowAndWorkIsCounted(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	receipt := f.put("logs-raw/acme/c/a", lines("x", 3, benchTime(), 4*time.Hour))
	lease := f.lease(receipt)
	lease.ClaimedAt = benchTime().Add(4*time.Hour + 40*time.Minute)
	edit, err := f.worker.Work(context.Background(), lease)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, task := range edit.Next {
		got = append(got, fmt.Sprint(task.Kind, " ", task.Window.Start.Format("15"), " ", task.Tier, " ", task.Delay))
	}
	start := lake.WindowOf(benchTime(), time.Hour).Start
	want := []string{
		"compact " + start.Add(8*time.Hour).Format("15") + " 0 10s",
		"compact " + start.Add(4*time.Hour).Format("15") + " 0 10s",
		"compact " + start.Format("15") + " 0 1m0s",
		// Of the first tier that there is by default; the last hour is not over.
		"rollup " + start.Add(8*time.Hour).Format("15") + " 60 4h0m0s",
		"rollup " + start.Add(4*time.Hour).Format("15") + " 60 0s",
		"rollup " + start.Format("15") + " 60 0s",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	written := int64(0)
	for _, s := range edit.Add {
		written += s.Bytes + s.SidecarBytes
	}
	if edit.Cost.BytesRead != receipt.Object.Size || edit.Cost.BytesWritten != written {
		t.Errorf("%+v, want %d bytes read and %d written", edit.Cost, receipt.Object.Size, written)
	}
}
