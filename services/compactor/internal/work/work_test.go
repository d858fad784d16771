// SPDX-License-Identifier: AGPL-3.0-only

package work_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/local/s3/s3test"
	"github.com/lakerunner/lakerunner/services/compactor/internal/plan"
	"github.com/lakerunner/lakerunner/services/compactor/internal/work"
)

func (f *fixture) wantRows(want []string) {
	f.t.Helper()
	if diff := cmp.Diff(want, f.stored()); diff != "" {
		f.t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestI10EveryRowIsKept(t *testing.T) {
	t.Parallel()
	f := newFixtureOn(t, s3test.New(t), "")
	rng := rand.New(rand.NewPCG(1, 3))
	for i := range 12 {
		var rows []row
		for hour := range 3 {
			rows = append(rows, f.rows(hour, 1+rng.IntN(40), fmt.Sprint("s", i%4), fmt.Sprint("object ", i))...)
		}
		f.ingest(rows)
	}
	want := f.stored()
	for hour := range 3 {
		report := f.compact(f.hour(hour))
		if report.Account.In == 0 || report.Account.In != report.Account.Out || len(report.Added) != 1 {
			t.Errorf("hour %d: %+v", hour, report.Account)
		}
	}
	f.wantRows(want)
	if n := len(f.segments()); n != 3 {
		t.Errorf("%d segments", n)
	}
	f.compact(f.day())
	f.wantRows(want)
	segments := f.segments()
	if len(segments) != 1 || segments[0].Window != f.day() || segments[0].Level != 3 {
		t.Errorf("%+v", segments)
	}
	if report := f.compact(f.day()); len(report.Added) != 0 {
		t.Errorf("a second time added %v", report.Added)
	}
}

func TestTheCostOfCompactionIsCounted(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "")
	before := int64(0)
	for range 3 {
		f.ingest(f.rows(0, 10, "a", "x"))
	}
	for _, s := range f.segments() {
		before += s.Bytes
	}
	f.compact(f.hour(0))
	costs, err := f.index.Costs(t.Context(), org, time.Now().Add(-48*time.Hour))
	if err != nil || len(costs) != 1 {
		t.Fatal(costs, err)
	}
	after := f.segments()[0]
	want := lake.Cost{Gets: 3, Puts: 2, BytesRead: before, BytesWritten: after.Bytes + after.SidecarBytes}
	if diff := cmp.Diff(want, costs[0].Cost); diff != "" {
		t.Error(diff)
	}
}

var errCrash = errors.New("crash")

// dying is the index's side of a process that crashes: from then on it says nothing any more.
type dying struct {
	*fixture
	crashAt string
	dead    bool
}

func (d *dying) Commit(ctx context.Context, lease *lake.Lease, edit lake.Edit) error {
	switch d.crashAt {
	case "before-commit":
		d.dead = true
		return errCrash
	case "after-commit":
		if err := d.index.Commit(ctx, lease, edit); err != nil {
			return err
		}
		d.dead = true
		return errCrash
	}
	return d.index.Commit(ctx, lease, edit)
}

func (d *dying) Release(ctx context.Context, lease *lake.Lease, cause error) error {
	if d.dead {
		return cause
	}
	return d.index.Release(ctx, lease, cause)
}

func TestCrashAtEachCheckpoint(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"window-read", "catalogue-read", "fetched", "merged", "declared", "sidecar-uploaded", "segment-uploaded", "before-commit", "after-commit",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, "    fields: [{name: user, action: drop, after: 1h}]")
			for range 3 {
				f.ingest(f.rows(0, 20, "a", "x"))
			}
			if name == "catalogue-read" { // needs a merge that is in doubt
				f.compactWithoutRules()
			}
			want := withoutUser(f.stored())
			claims := &dying{fixture: f, crashAt: name}
			f.at = func(at string) {
				if at == name {
					claims.dead = true
					panic(errCrash)
				}
			}
			do := f.worker.Asked(nil)
			if name == "catalogue-read" {
				do = f.worker.Work
			}
			if err := f.try(claimsOf(claims), f.hour(0), do); err == nil || !claims.dead {
				t.Fatalf("it did not crash: %v", err)
			}
			f.at = func(string) {}
			if err := f.try(f.index, f.hour(0), do); err != nil { // once the lease has expired
				t.Fatal(err)
			}
			f.wantRows(want)
			if n := len(f.segments()); n != 1 {
				t.Errorf("%d segments", n)
			}
		})
	}
}

// compactWithoutRules leaves one settled segment that lacks the fixture's rules.
func (f *fixture) compactWithoutRules() {
	f.t.Helper()
	other := newWorkerOf(f, "")
	if err := f.try(f.index, f.hour(0), other.Asked(nil)); err != nil {
		f.t.Fatal(err)
	}
}

func withoutUser(rows []string) []string {
	out := make([]string, len(rows))
	for i, r := range rows {
		out[i], _, _ = strings.Cut(r, " user=")
	}
	return out
}

// TestLostLease has another worker do the work while the first one still thinks that it has the lease.
func TestLostLease(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "")
	for range 3 {
		f.ingest(f.rows(0, 20, "a", "x"))
	}
	want := f.stored()
	slow := &deaf{fixture: f}
	once := false
	f.at = func(at string) {
		if at == "merged" && !once {
			once = true
			f.at = func(string) {}
			f.compactByAnother()
		}
	}
	if err := f.try(claimsOf(slow), f.hour(0), f.worker.Asked(nil)); !errors.Is(err, fault.Conflict) {
		t.Errorf("got %v", err)
	}
	f.wantRows(want)
	if n := len(f.segments()); n != 1 {
		t.Errorf("%d segments", n)
	}
}

// compactByAnother waits for the lease to expire.
func (f *fixture) compactByAnother() {
	if err := f.try(f.index, f.hour(0), f.worker.Asked(nil)); err != nil {
		f.t.Error(err)
	}
}

// deaf never renews, and does not know it.
type deaf struct{ *fixture }

func (d *deaf) Renew(context.Context, lake.LeaseID) error { return nil }

// TestWhatHappensMeanwhile changes the window while a merge is on its way.
func TestWhatHappensMeanwhile(t *testing.T) {
	t.Parallel()
	meanwhile := func(f *fixture, do func()) {
		f.at = func(at string) {
			if at == "merged" {
				f.at = func(string) {}
				do()
			}
		}
	}
	t.Run("late data stands beside what was merged", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t, "")
		f.ingest(f.rows(0, 20, "a", "x"))
		f.ingest(f.rows(0, 20, "a", "y"))
		meanwhile(f, func() { f.ingest(f.rows(0, 5, "a", "late")) })
		f.compact(f.hour(0))
		if rows := f.stored(); len(rows) != 45 || len(f.segments()) != 2 {
			t.Errorf("%d rows in %d segments", len(rows), len(f.segments()))
		}
		want := f.stored()
		f.compact(f.hour(0))
		f.wantRows(want)
	})
	t.Run("a source that is superseded is masked in what was merged, and gone with the next merge", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t, "")
		f.put(object{key: "logs-raw/acme/c/k", rows: f.rows(0, 20, "a", "old")})
		f.ingest(f.rows(0, 20, "a", "other"))
		meanwhile(f, func() { f.put(object{key: "logs-raw/acme/c/k", replace: true, rows: f.rows(0, 10, "a", "new")}) })
		f.compact(f.hour(0))
		want := f.stored()
		if len(want) != 30 {
			t.Fatalf("%d rows", len(want))
		}
		report := f.compact(f.hour(0))
		if report.Account.Masked != 20 {
			t.Errorf("%+v", report.Account)
		}
		f.wantRows(want)
		for _, s := range f.segments() {
			if s.Rows != 30 || len(s.MaskedSources) > 0 {
				t.Errorf("%+v", s)
			}
		}
	})
	t.Run("a delete masks what was merged, and is applied by the next merge", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t, "")
		source := f.ingest(f.rows(0, 20, "a", "x"))
		f.ingest(f.rows(0, 20, "b", "y"))
		var d lake.Delete
		meanwhile(f, func() { d = f.delete(`{service_name="a"} |= "x 1"`) })
		f.compact(f.hour(0))
		if s := f.segments()[0]; s.AppliedDelete >= d.ID || len(f.answer().Deletes) != 1 {
			t.Fatalf("%+v, %+v", s, f.answer().Deletes)
		}
		f.due(f.hour(0))
		if s := f.segments()[0]; s.Rows != 40-11 || s.AppliedDelete != d.ID || len(f.answer().Deletes) != 0 {
			t.Errorf("%+v, %+v", s, f.answer().Deletes)
		}
		progress, err := f.index.DeleteProgress(t.Context(), d.ID)
		if err != nil || progress.SegmentsLeft != 0 || progress.RowsDeleted != 11 {
			t.Errorf("%+v, %v", progress, err)
		}
		sources, err := f.index.DeleteSources(t.Context(), d.ID, 0, 10)
		if err != nil || len(sources) != 1 || sources[0].Receipt.ID != source || sources[0].Rows != 11 {
			t.Errorf("%+v, %v", sources, err)
		}
	})
}

func (f *fixture) delete(selector string) lake.Delete {
	f.t.Helper()
	d, err := f.index.CreateDelete(f.t.Context(), lake.Delete{
		Organization: org, Signal: lake.SignalLogs, Selector: selector, Start: f.start, End: f.start.Add(time.Hour), Sources: lake.SourceLeave, Actor: "test",
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return d
}

func TestADeleteThatFindsNothingIsOnlyMarked(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "")
	f.ingest(f.rows(0, 20, "a", "x"))
	f.compact(f.hour(0))
	before := f.segments()[0]
	d := f.delete(`{service_name="nobody"}`)
	f.due(f.hour(0))
	after := f.segments()[0]
	if after.ID != before.ID || after.AppliedDelete != d.ID || f.count("lakerunner.compactor.marks") != 1 {
		t.Errorf("%+v became %+v", before, after)
	}
}

func TestI10ADifferenceIsLoud(t *testing.T) {
	t.Parallel()
	for name, corrupt := range map[string]func(f *fixture, s lake.Segment){
		"a segment of other rows": func(f *fixture, s lake.Segment) {
			rows := f.rows(0, 20, "a", "z")
			parquet, _, _ := f.encode(rows, s.Sources[0], lakeMeta(s))
			f.store(s.Key, parquet)
		},
		"a row that is missing": func(f *fixture, s lake.Segment) {
			parquet, _, _ := f.encode(f.rows(0, 20, "a", "x")[:19], s.Sources[0], lakeMeta(s))
			f.store(s.Key, parquet)
		},
		"bytes that are damaged": func(f *fixture, s lake.Segment) {
			content := f.read(s.Key)
			for i := 100; i < 400; i++ {
				content[i] ^= 0x55
			}
			f.store(s.Key, content)
		},
		"half a file": func(f *fixture, s lake.Segment) {
			content := f.read(s.Key)
			f.store(s.Key, content[:len(content)/2])
		},
	} {
		t.Run(name+" fails the task loudly and changes nothing", func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, "")
			f.ingest(f.rows(0, 20, "a", "x"))
			f.ingest(f.rows(0, 20, "b", "y"))
			before := f.segments()
			window, err := f.index.Window(t.Context(), org, lake.SignalLogs, f.hour(0))
			if err != nil {
				t.Fatal(err)
			}
			corrupt(f, window.Segments[0])
			err = f.try(f.index, f.hour(0), f.worker.Asked(nil))
			if !errors.Is(err, fault.Internal) || !strings.Contains(err.Error(), "conservation") {
				t.Errorf("got %v", err)
			}
			if n := f.count("lakerunner.compactor.conservation_failures"); n != 1 {
				t.Errorf("%d failures were counted", n)
			}
			if diff := cmp.Diff(before, f.segments()); diff != "" {
				t.Error(diff)
			}
			f.scratchIsEmpty()
		})
	}
}

func TestI11AMissingInputDoesNotKeepOthersFromBeingMerged(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "")
	for range 4 {
		f.ingest(f.rows(0, 20, "a", "x"))
	}
	gone := f.segments()[1]
	if err := f.bucket.Delete(t.Context(), gone.Key); err != nil {
		t.Fatal(err)
	}
	report := f.compact(f.hour(0))
	left := f.segments()
	if report.Account.In != 60 || len(left) != 2 || !slices.ContainsFunc(left, func(s lake.Segment) bool { return s.ID == gone.ID }) {
		t.Errorf("%+v, %d segments", report.Account, len(left))
	}
	missing, err := f.index.Missing(t.Context(), org, 10)
	if err != nil || len(missing) != 1 || f.count("lakerunner.compactor.missing_inputs") != 1 {
		t.Errorf("%+v, %v", missing, err)
	}
}

func TestDoublesOfIdentifiedRowsVanish(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "")
	identified := func(from, to int) (rows []row) {
		for _, r := range f.rows(0, 30, "a", "x")[from:to] {
			r.identity = "id " + r.body
			rows = append(rows, r)
		}
		return rows
	}
	f.ingest(identified(0, 20))
	f.ingest(identified(10, 30))
	f.ingest(f.rows(0, 5, "b", "without"))
	report := f.compact(f.hour(0))
	if report.Account != (work.Account{In: 45, Out: 35, Deduplicated: 10}) {
		t.Errorf("%+v", report.Account)
	}
	if s := f.segments(); len(s) != 1 || !s[0].Identified || s[0].Rows != 35 {
		t.Errorf("%+v", s)
	}
}

func TestFieldRulesAndRetention(t *testing.T) {
	t.Parallel()
	f := newFixture(t, `    fields: [{name: user, action: mask, after: 1d}, {name: nothing, action: drop, after: 1d}, {name: later, action: drop, after: 4000d}]
    retention:
      - {signal: logs, selector: '{service_name="keep"}', keep: 4000d}
      - {signal: logs, selector: '{service_name="short"}', keep: 1d}
      - {signal: logs, keep: 30d}
`)
	f.ingest(f.rows(0, 10, "keep", "k"))
	f.ingest(f.rows(0, 10, "short", "s"))
	f.ingest(f.rows(0, 10, "other", "o"))
	version := func() int64 {
		v, err := f.index.WindowVersion(t.Context(), org, lake.SignalLogs, f.hour(0))
		if err != nil {
			t.Fatal(err)
		}
		return v.Version
	}
	before := version()
	report := f.compact(f.hour(0))
	if report.Account != (work.Account{In: 30, Out: 10, Expired: 20}) {
		t.Errorf("%+v", report.Account)
	}
	for _, r := range f.stored() {
		if !strings.Contains(r, "keep") || !strings.HasSuffix(r, "user=***") {
			t.Errorf("row %s", r)
		}
	}
	if version() == before {
		t.Error("answers changed, and the window's version did not")
	}
	s := f.segments()[0]
	if len(s.Rules) != 4 || !slices.Contains(s.Rules, "mask:user") || !slices.Contains(s.Rules, "drop:nothing") {
		t.Errorf("rules %v", s.Rules)
	}
	f.due(f.hour(0))
	if again := f.segments()[0]; again.ID != s.ID {
		t.Error("rules were applied twice")
	}
}

func TestMarksTakeThePlaceOfRewritesThatFindNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, `    fields: [{name: nothing, action: drop, after: 1d}, {name: resource.nothing, action: drop, after: 1d}]
    retention: [{signal: logs, selector: '{service_name="nobody"}', keep: 1d}]
`)
	f.ingest(f.rows(0, 10, "a", "x"))
	f.compactWithoutRules()
	before := f.segments()[0]
	f.due(f.hour(0))
	if s := f.segments()[0]; s.ID != before.ID || len(s.Rules) != 3 {
		t.Errorf("%+v", s)
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	t.Run("a merge that takes more scratch than it may is left", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t, "", func(c *work.Config) {
			c.ScratchBytes = 4_000
			c.Policy.MergeBytes = 1 << 20
		})
		for range 3 {
			f.ingest(f.rows(0, 500, "a", "x"))
		}
		want := f.stored()
		f.compact(f.hour(0))
		f.wantRows(want)
		if n := f.count("lakerunner.compactor.skipped_merges"); n == 0 || len(f.segments()) != 3 {
			t.Errorf("%d skipped, %d segments", n, len(f.segments()))
		}
	})
	t.Run("a merge that takes more memory than it may is done in parts, or left", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t, "", func(c *work.Config) { c.Memory = 1 << 20 })
		for range 9 {
			f.ingest(f.rows(0, 50, "a", "x"))
		}
		want := f.stored()
		f.compact(f.hour(0))
		f.wantRows(want)
		if n := f.count("lakerunner.compactor.skipped_merges"); n == 0 {
			t.Error("nothing was skipped")
		}
	})
	t.Run("a delete in a segment that takes more scratch than it may is told of", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t, "", func(c *work.Config) { c.ScratchBytes = 4_000 })
		f.ingest(f.rows(0, 500, "a", "x"))
		f.delete(`{service_name="a"} |= "x"`)
		err := f.try(f.index, f.hour(0), f.worker.Work)
		if s := f.segments()[0]; !errors.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), s.Key) {
			t.Errorf("it does not name segment %s: %v", s.Key, err)
		}
		if n := f.count("lakerunner.compactor.skipped_merges"); n != 1 {
			t.Errorf("%d are counted", n)
		}
		f.scratchIsEmpty()
	})
	t.Run("fan-in is bounded", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t, "", func(c *work.Config) { c.Policy = plan.Policy{FanIn: 4} })
		for range 9 {
			f.ingest(f.rows(0, 5, "a", "x"))
		}
		want := f.stored()
		report := f.compact(f.hour(0))
		f.wantRows(want)
		if len(report.Plan.Merges) != 3 || len(f.segments()) != 3 {
			t.Errorf("%d merges, %d segments", len(report.Plan.Merges), len(f.segments()))
		}
	})
}

func TestI13NothingIsPutOutsideOfDeclaredFolders(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "")
	for range 3 {
		f.ingest(f.rows(0, 10, "a", "x"))
	}
	before := f.keys()
	var declared []string
	f.at = func(at string) {
		if at == "merged" && len(f.keys()) != len(before) {
			t.Error("something was put before a folder was declared")
		}
	}
	report := f.compact(f.hour(0))
	for _, s := range report.Added {
		declared = append(declared, s.Key, lake.SidecarKey(s.Key))
	}
	want := append(before, declared...)
	slices.Sort(want)
	if diff := cmp.Diff(want, f.keys()); diff != "" {
		t.Error(diff)
	}
}

// keys are all of the bucket.
func (f *fixture) keys() (keys []string) {
	f.t.Helper()
	for object, err := range f.bucket.List(context.Background(), "", "") {
		if err != nil {
			f.t.Fatal(err)
		}
		keys = append(keys, object.Key)
	}
	return keys
}

func TestTheWindowIsLookedAtAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "")
	f.start = time.Now().UTC().Truncate(time.Hour)
	f.ingest([]row{{time: f.start, service: "a", body: "x"}})
	var edit lake.Edit
	if err := f.try(f.index, f.hour(0), func(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
		var err error
		edit, err = f.worker.Work(ctx, lease)
		return edit, err
	}); err != nil {
		t.Fatal(err)
	}
	if len(edit.Next) != 1 || edit.Next[0].Window != f.hour(0) || edit.Next[0].Delay < time.Minute || edit.Next[0].Delay > 76*time.Minute {
		t.Errorf("%+v", edit.Next)
	}
}

func TestI12ScratchOfProcessesThatDiedIsRemoved(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	for name, age := range map[string]time.Duration{"compact-1": 2 * time.Hour, "compact-2": time.Minute, "other": 2 * time.Hour} {
		if err := os.MkdirAll(filepath.Join(directory, name, "deep"), 0o700); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(filepath.Join(directory, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := work.RemoveAbandoned(directory); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(directory, "*"))
	if err != nil || len(left) != 2 || filepath.Base(left[0]) != "compact-2" {
		t.Errorf("%v, %v", left, err)
	}
}
