// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
)

// TestRowsInAreRowsOut puts objects into the bucket and finds every row of them, once, by query.
func TestRowsInAreRowsOut(t *testing.T) {
	t.Parallel()
	l := newLake(t, lakeOptions{})
	end := lately()
	objects := makeSample(t, sample.Options{Seed: 1, End: end, Length: 3 * time.Hour, Lines: 12000, Objects: 24})
	for _, o := range objects {
		l.put(o.Key, o.Body)
	}
	receipts := l.awaitReceipts("default", "otel-raw/", len(objects))
	start := end.Add(-3 * time.Hour)

	t.Run("the receipts account for every row", func(t *testing.T) {
		t.Parallel()
		var in, out int64
		for _, r := range receipts {
			if r.GetState() != lakev1.ReceiptState_RECEIPT_STATE_DONE {
				t.Errorf("%s is %s: %s", r.GetObject().GetKey(), r.GetState(), r.GetReason())
			}
			in, out = in+r.GetRowsIn(), out+r.GetRowsOut()
		}
		if want := int64(sample.Rows(objects)); in != want || out != want {
			t.Errorf("%d rows in, %d rows out; want %d", in, out, want)
		}
	})

	t.Run("a log query finds exactly the rows that were put", func(t *testing.T) {
		t.Parallel()
		got, want := hashOf(l.lines("default", everything, start, end)), hashOfSample(objects...)
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})

	t.Run("a count knows them all", func(t *testing.T) {
		t.Parallel()
		want := map[string]int64{}
		for _, o := range objects {
			for _, r := range o.Rows {
				want[r.Service]++
			}
		}
		got := map[string]int64{}
		for service := range want {
			got[service] = l.count("default", fmt.Sprintf("sum(count_over_time({service_name=%q}[4h]))", service), end)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("a filter finds what the lines say", func(t *testing.T) {
		t.Parallel()
		var want lineHash
		for _, o := range objects {
			for _, r := range o.Rows {
				if r.Service == "checkout" && strings.Contains(r.Line, "declined") {
					want.add(r.Time, r.Service, r.Line)
				}
			}
		}
		if got := hashOf(l.lines("default", `{service_name="checkout"} |= "declined"`, start, end)); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// TestDuplicates tells of objects more than once, in every way there is.
func TestDuplicates(t *testing.T) {
	t.Parallel()
	l := newLake(t, lakeOptions{})
	end := lately()
	objects := makeSample(t, sample.Options{Seed: 2, End: end, Lines: 500, Objects: 2})
	for _, o := range objects {
		l.put(o.Key, o.Body)
	}
	l.awaitReceipts("default", "otel-raw/", 2)

	// Written again with the same content, announced again by gRPC, asked for again: each is the object that is known.
	for _, o := range objects {
		tag := l.put(o.Key, o.Body)
		if !l.announce("default", &lakev1.Object{Bucket: l.bucket.Name(), Key: o.Key, Tag: tag, Size: int64(len(o.Body))}) {
			t.Errorf("%s was not known as a duplicate", o.Key)
		}
		if state := l.ingestNow("default", o.Key); state != lakev1.ReceiptState_RECEIPT_STATE_DONE {
			t.Errorf("%s: %s", o.Key, state)
		}
	}
	l.awaitReceipts("default", "otel-raw/", 2)
	if got, want := hashOf(l.lines("default", everything, end.Add(-time.Hour), end)), hashOfSample(objects...); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestRewrites writes other content under a known key.
func TestRewrites(t *testing.T) {
	t.Parallel()
	end := lately()
	first := makeSample(t, sample.Options{Seed: 3, End: end, Lines: 300, Objects: 1})[0]
	second := makeSample(t, sample.Options{Seed: 4, End: end, Lines: 400, Objects: 1})[0]
	rewrite := func(t *testing.T, mode string) *lake {
		t.Helper()
		l := newLake(t, lakeOptions{onRewrite: mode})
		l.put(first.Key, first.Body)
		l.awaitReceipts("default", "otel-raw/", 1)
		l.put(first.Key, second.Body)
		l.awaitReceipts("default", "otel-raw/", 2)
		return l
	}

	t.Run("append keeps the rows of both", func(t *testing.T) {
		t.Parallel()
		l := rewrite(t, "append")
		if got, want := hashOf(l.lines("default", everything, end.Add(-time.Hour), end)), hashOfSample(first, second); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})

	t.Run("replace keeps the rows of the newer one, in lines and in counts", func(t *testing.T) {
		t.Parallel()
		l := rewrite(t, "replace")
		if got, want := hashOf(l.lines("default", everything, end.Add(-time.Hour), end)), hashOfSample(second); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if got, want := l.count("default", "sum(count_over_time("+everything+"[1h]))", end), int64(len(second.Rows)); got != want {
			t.Errorf("counted %d, want %d", got, want)
		}
	})
}

// TestReplay ingests an object once more: its rows are there once.
func TestReplay(t *testing.T) {
	t.Parallel()
	l := newLake(t, lakeOptions{})
	end := lately()
	object := makeSample(t, sample.Options{Seed: 5, End: end, Lines: 200, Objects: 1})[0]
	l.put(object.Key, object.Body)
	id := l.awaitReceipts("default", "otel-raw/", 1)[0].GetReceiptId()
	l.replay("default", id)
	l.awaitReceipts("default", "otel-raw/", 2)
	if got, want := hashOf(l.lines("default", everything, end.Add(-time.Hour), end)), hashOfSample(object); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
