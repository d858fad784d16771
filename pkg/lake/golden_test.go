// SPDX-License-Identifier: AGPL-3.0-only

package lake_test

import (
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// The vectors of this file are stored in buckets and databases: they may never change.

func TestFingerprintVectorsAreFrozen(t *testing.T) {
	t.Parallel()
	for template, want := range map[string]lake.Fingerprint{
		"":                       0xcbf29ce484222325,
		"a":                      0xaf63dc4c8601ec8c,
		"foobar":                 0x85944171f73967e8, // the vectors of RFC 9923
		"order <*> failed: <*>":  0x051977a5b3bb3fde,
		"GET <*> <*> <*> \u20ac": 0x0b2e9a0398a9c83b,
	} {
		if got := lake.FingerprintOf([]byte(template)); got != want {
			t.Errorf("FingerprintOf(%q) = %#x, want %#x", template, uint64(got), uint64(want))
		}
	}
}

func TestKeyLayoutIsFrozen(t *testing.T) {
	t.Parallel()
	w := lake.WindowOf(time.Date(2026, 11, 22, 15, 59, 59, 999999999, time.UTC), time.Hour)
	key := lake.SegmentKey("acme", lake.SignalLogs, w, "01hzy", 7)
	if want := "db/acme/logs/2026-11-22/01hzy/000007.parquet"; key != want {
		t.Errorf("SegmentKey = %q, want %q", key, want)
	}
	if got, want := lake.SidecarKey(key), "db/acme/logs/2026-11-22/01hzy/000007.parquet.idx"; got != want {
		t.Errorf("SidecarKey = %q, want %q", got, want)
	}
	if got, want := lake.RejectsKey("acme", "01hzy", 42), "db/acme/rejects/01hzy/42.ndjson.gz"; got != want {
		t.Errorf("RejectsKey = %q, want %q", got, want)
	}
	if !lake.OwnKey(key) || lake.OwnKey("otel-raw/db/x") {
		t.Error("OwnKey: want true for keys below db/ alone")
	}
}

func TestWindowsAlignDownwardsAndAreHalfOpen(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		at    time.Time
		width time.Duration
		want  time.Time
	}{
		{time.Date(2026, 11, 22, 15, 0, 0, 0, time.UTC), time.Hour, time.Date(2026, 11, 22, 15, 0, 0, 0, time.UTC)},
		{time.Date(2026, 11, 22, 15, 59, 59, 999999999, time.UTC), time.Hour, time.Date(2026, 11, 22, 15, 0, 0, 0, time.UTC)},
		{time.Date(2026, 11, 22, 15, 59, 59, 0, time.UTC), 24 * time.Hour, time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)},
		{time.Date(1969, 12, 31, 23, 59, 59, 0, time.UTC), time.Hour, time.Date(1969, 12, 31, 23, 0, 0, 0, time.UTC)},
		{time.Date(2026, 11, 22, 15, 30, 0, 0, time.FixedZone("", 5*3600+1800)), time.Hour, time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)},
	} {
		w := lake.WindowOf(c.at, c.width)
		if !w.Start.Equal(c.want) {
			t.Errorf("WindowOf(%s, %s) starts %s, want %s", c.at, c.width, w.Start, c.want)
		}
		if !w.Contains(c.at) || !w.Contains(w.Start) || w.Contains(w.End()) {
			t.Errorf("window %s of %s is not half-open around %s", w.Start, c.width, c.at)
		}
	}
}

func TestOrganizationIdsFitIntoKeys(t *testing.T) {
	t.Parallel()
	for _, good := range []lake.Organization{"a", "acme", "0-9_z"} {
		if err := good.Valid(); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []lake.Organization{"", "-a", "_a", "Acme", "a/b", "..", "a b", "é", lake.Organization(make([]byte, 64))} {
		if bad.Valid() == nil {
			t.Errorf("organization %q: want it refused", string(bad))
		}
	}
}

func TestSignalsParseAsTheyPrint(t *testing.T) {
	t.Parallel()
	for _, s := range []lake.Signal{lake.SignalUnknown, lake.SignalLogs, lake.SignalMetrics, lake.SignalSpans} {
		if got, err := lake.ParseSignal(s.String()); err != nil || got != s {
			t.Errorf("ParseSignal(%q) = %v, %v", s.String(), got, err)
		}
	}
	if _, err := lake.ParseSignal("profiles"); err == nil {
		t.Error("ParseSignal(profiles): want an error")
	}
}
