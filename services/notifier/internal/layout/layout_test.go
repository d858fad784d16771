// SPDX-License-Identifier: AGPL-3.0-only

package layout_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/objects/objectstest"
	"github.com/lakerunner/lakerunner/services/notifier/internal/layout"
)

func TestOf(t *testing.T) {
	t.Parallel()
	at := func(text string) time.Time {
		when, err := time.Parse("2006-01-02 15", text)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	for key, want := range map[string]layout.Partition{
		"otel-raw/acme/c1/year=2026/month=11/day=22/hour=17/minute=05/logs_1.json": {Family: layout.Family{Base: "otel-raw/acme/c1/", Form: "hive"}, Start: at("2026-11-22 17"), Length: time.Hour},
		"year=2026/month=11/day=22/logs_1.json":                                    {Family: layout.Family{Form: "hive"}, Start: at("2026-11-22 00"), Length: 24 * time.Hour},
		"p/dt=20180515/hour=14/archive_143201.1234.x.json.gz":                      {Family: layout.Family{Base: "p/", Form: "dt"}, Start: at("2018-05-15 14"), Length: time.Hour},
		"p/dt=2018-05-15/x":                                                                     {Family: layout.Family{Base: "p/", Form: "dt-"}, Start: at("2018-05-15 00"), Length: 24 * time.Hour},
		"date=2022-07-18/1658176486-30f6652c.log.gz":                                            {Family: layout.Family{Form: "date"}, Start: at("2022-07-18 00"), Length: 24 * time.Hour},
		"fluent-bit-logs/kube.var/2020/11/17/00/00/00-objectAbCd":                               {Family: layout.Family{Base: "fluent-bit-logs/kube.var/", Form: "digits"}, Start: at("2020-11-17 00"), Length: time.Hour},
		"AWSLogs/123456789012/CloudTrail/us-east-1/2023/07/19/1_CloudTrail_us-east-1_x.json.gz": {Family: layout.Family{Base: "AWSLogs/123456789012/CloudTrail/us-east-1/", Form: "digits"}, Start: at("2023-07-19 00"), Length: 24 * time.Hour},
		"b/2022-07-18/05/x":                                                                     {Family: layout.Family{Base: "b/", Form: "dashes"}, Start: at("2022-07-18 05"), Length: time.Hour},
		"b/2022/13/18/2023/01/02/x":                                                             {Family: layout.Family{Base: "b/2022/13/18/", Form: "digits"}, Start: at("2023-01-02 00"), Length: 24 * time.Hour},
		"b/2022/12/18/99/x":                                                                     {Family: layout.Family{Base: "b/", Form: "digits"}, Start: at("2022-12-18 00"), Length: 24 * time.Hour},
		"plain/logs_1.json":                                                                     {},
		"2022/1/2/x":                                                                            {},
		"x2022/01/02/y":                                                                         {},
		"2022/01/02":                                                                            {},
		"":                                                                                      {},
	} {
		got, ok := layout.Of(key, "")
		if diff := cmp.Diff(want, got); diff != "" || ok != (want.Form != "") {
			t.Errorf("%s: %s", key, diff)
		}
	}
	if p, ok := layout.Of("logs/2022/01/02/x", "logs/2022/"); ok {
		t.Errorf("a time that begins in the prefix: got %+v", p)
	}
}

func TestFamiliesSortByTime(t *testing.T) {
	t.Parallel()
	when := time.Date(2026, 1, 31, 23, 59, 0, 0, time.UTC)
	for _, form := range []string{"hive", "dt", "dt-", "date", "digits", "dashes"} {
		f := layout.Family{Base: "base/", Form: form}
		if !f.Valid() {
			t.Errorf("%s is not valid", form)
		}
		places := []string{
			f.Prefix(), f.Day(when.Add(-24 * time.Hour)), f.From(when.Add(-2*time.Hour), true), f.From(when, true),
			f.From(when, true) + "x", f.Day(when.Add(time.Hour)), f.Day(when.Add(time.Hour)) + "x", f.End(),
		}
		for i := range places[1:] {
			if places[i] >= places[i+1] {
				t.Errorf("%s: %q does not come before %q", form, places[i], places[i+1])
			}
		}
		p, ok := layout.Of(f.From(when, true)+"x", "")
		if !ok || !p.Start.Equal(when.Truncate(time.Hour)) || p.Family != f {
			t.Errorf("%s: got %+v", form, p)
		}
	}
}

func TestWalk(t *testing.T) {
	t.Parallel()
	b := objectstest.Memory(t)
	for _, key := range []string{
		"a.json", "c1/year=2026/month=11/day=21/hour=17/1", "c1/year=2026/month=11/day=22/hour=17/1", "c2/2026/11/22/1", "c2/2026/11/22/2", "c2/readme",
		"db/acme/logs/2026-11-22/lease/000000.parquet", "db/x", "dc", "z/1",
	} {
		if _, err := b.Put(t.Context(), key, strings.NewReader("x"), 1); err != nil {
			t.Fatal(err)
		}
	}
	walk := func(prefix, place string) (got, places []string) {
		for s, err := range layout.Walk(t.Context(), b, prefix, place) {
			if err != nil {
				t.Fatal(err)
			}
			text := s.Object.Key
			if s.First != nil {
				text = "family " + s.First.Base + " from " + s.First.Start.Format(time.DateOnly)
			}
			got, places = append(got, text), append(places, s.Place)
		}
		return got, places
	}
	want := []string{"a.json", "family c1/ from 2026-11-21", "family c2/ from 2026-11-22", "c2/readme", "dc", "z/1"}
	got, places := walk("", "")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for i, place := range places {
		rest, _ := walk("", place)
		if diff := cmp.Diff(append([]string(nil), want[i+1:]...), rest); diff != "" {
			t.Errorf("from %q: %s", place, diff)
		}
	}
	if got, _ := walk("db/", ""); len(got) != 0 {
		t.Errorf("below our own prefix: %q", got)
	}
}
