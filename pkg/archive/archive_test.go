// SPDX-License-Identifier: AGPL-3.0-only

package archive_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/archive"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects/objectstest"
)

const org lake.Organization = "acme"

var day = time.Date(2026, 11, 20, 23, 59, 0, 0, time.UTC)

// TestRecords writes files of records and finds them again by day.
func TestRecords(t *testing.T) {
	t.Parallel()
	bucket := objectstest.Memory(t)
	for i := range 5 {
		b := archive.Batch{Last: int64(10 * (i + 1)), At: day.Add(time.Duration(i) * 24 * time.Hour), Lines: fmt.Appendf(nil, "{\"n\":%d}\n{}\n", i)}
		first, err := archive.WriteRecords(t.Context(), bucket, org, b)
		if err != nil {
			t.Fatal(err)
		}
		again, err := archive.WriteRecords(t.Context(), bucket, org, b)
		if err != nil || again.Key != first.Key {
			t.Fatalf("written again: %+v, %v; want %+v", again, err, first)
		}
	}
	list := func(since time.Time) (lines []string) {
		for f, err := range archive.RecordFiles(t.Context(), bucket, org, since) {
			if err != nil {
				t.Fatal(err)
			}
			if err := archive.ReadLines(t.Context(), bucket, f.Key, func(line []byte) error { lines = append(lines, string(line)); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		return lines
	}

	t.Run("all since a time are found, in order", func(t *testing.T) {
		t.Parallel()
		want := []string{`{"n":3}`, `{}`, `{"n":4}`, `{}`}
		if diff := cmp.Diff(want, list(day.Add(3*24*time.Hour))); diff != "" {
			t.Error(diff)
		}
		if n := len(list(time.Time{})); n != 10 {
			t.Errorf("%d lines, want 10", n)
		}
	})

	t.Run("older ones are those of earlier days", func(t *testing.T) {
		t.Parallel()
		n := 0
		for _, err := range archive.OldRecordFiles(t.Context(), bucket, org, day.Add(3*24*time.Hour)) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != 3 {
			t.Errorf("%d files, want 3", n)
		}
	})
}

// TestSnapshots writes snapshots, one of which its writer never finished.
func TestSnapshots(t *testing.T) {
	t.Parallel()
	bucket := objectstest.Memory(t)
	write := func(id string, finish bool) {
		w := archive.NewSnapshot(bucket, org, id)
		for _, rows := range []string{"{\"a\":1}\n{\"a\":2}\n", "{\"a\":3}"} {
			if err := w.Part(t.Context(), "segments", []byte(rows)); err != nil {
				t.Fatal(err)
			}
		}
		if !finish {
			return
		}
		if _, m, err := w.Finish(t.Context(), day, day.Add(time.Minute)); err != nil || m.Rows != 3 {
			t.Fatalf("%+v, %v", m, err)
		}
	}
	write("20261120T000000Z-a", true)
	write("20261121T000000Z-b", false)
	write("20261119T000000Z-c", true)
	found, err := archive.Snapshots(t.Context(), bucket, org)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, s := range found {
		ids = append(ids, fmt.Sprint(s.ID, " ", s.Manifest != nil))
	}
	if diff := cmp.Diff([]string{"20261121T000000Z-b false", "20261120T000000Z-a true", "20261119T000000Z-c true"}, ids); diff != "" {
		t.Error(diff)
	}

	var rows []string
	if err := found[1].Read(t.Context(), func(p archive.Part, part []byte) error {
		rows = append(rows, p.Table+": "+string(part))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"segments: {\"a\":1}\n{\"a\":2}\n", "segments: {\"a\":3}\n"}, rows); diff != "" {
		t.Error(diff)
	}
	if err := found[0].Read(t.Context(), nil); !errors.Is(err, fault.Invalid) {
		t.Errorf("an unfinished one: %v, want %v", err, fault.Invalid)
	}

	// Another part's content in the place of one.
	if err := bucket.Delete(t.Context(), found[1].Keys[1]); err != nil {
		t.Fatal(err)
	}
	stranger := archive.NewSnapshot(bucket, org, "20261120T000000Z-a")
	if err := stranger.Part(t.Context(), "segments", []byte("{\"a\":9}\n")); err != nil {
		t.Fatal(err)
	}
	err = found[1].Read(t.Context(), func(archive.Part, []byte) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged one: %v", err)
	}

	if err := found[1].Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := archive.Snapshots(t.Context(), bucket, org); err != nil || len(left) != 2 {
		t.Errorf("%d snapshots are left, %v; want 2", len(left), err)
	}
}

// TestOrganizations finds whose files a bucket holds.
func TestOrganizations(t *testing.T) {
	t.Parallel()
	bucket := objectstest.Memory(t)
	for _, o := range []lake.Organization{"acme", "acme-2", "acme0", "zoo"} {
		if _, err := archive.WriteRecords(t.Context(), bucket, o, archive.Batch{Last: 1, At: day, Lines: []byte("{}\n")}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := archive.Organizations(t.Context(), bucket)
	if err != nil {
		t.Fatal(err)
	}
	// In the order of the keys, in which '-' comes before '/' and '0' after it.
	if diff := cmp.Diff([]lake.Organization{"acme-2", "acme", "acme0", "zoo"}, got); diff != "" {
		t.Error(diff)
	}
}
