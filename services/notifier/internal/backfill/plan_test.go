// SPDX-License-Identifier: AGPL-3.0-only

package backfill

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/objects/objectstest"
	"github.com/lakerunner/lakerunner/services/notifier/internal/layout"
)

func TestBandsShareTheObjects(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		days map[int64]int64
		want []band
	}{
		"none":                  {nil, nil},
		"one day":               {map[int64]int64{7: 5}, []band{{7, 8}}},
		"few objects, one walk": {map[int64]int64{1: 100, 50: 100, 99: 100}, []band{{1, 100}}},
		"the newest first":      {map[int64]int64{1: 1000, 2: 1000, 3: 1000}, []band{{3, 4}, {2, 3}, {1, 2}}},
		"before 1970":           {map[int64]int64{-5: 1000, 5: 1000}, []band{{5, 6}, {-5, -4}}},
		"never many walks": {
			func() map[int64]int64 {
				days := map[int64]int64{}
				for day := range int64(80) {
					days[day] = 10_000
				}
				return days
			}(),
			[]band{{70, 80}, {60, 70}, {50, 60}, {40, 50}, {30, 40}, {20, 30}, {10, 20}, {0, 10}},
		},
	} {
		if diff := cmp.Diff(test.want, bandsOf(test.days)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestPlanGoesFromTheNewestDown(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	today := dayOf(now)
	p := &plan{Days: map[int64]int64{today - 1: 1000, today - 3: 1000}, Families: []surveyed{
		{layout.Family{Base: "a/", Form: "hive"}, today - 2},
		{layout.Family{Base: "b/", Form: "dt"}, today},
	}}
	p.finishSurvey(Scope{}, now)
	var got []string
	for at, ok := p.at(); ok; at, ok = p.at() {
		text := fmt.Sprintf("band %d..%d", at.band.From-today, at.band.To-today)
		if at.family != nil {
			text = fmt.Sprintf("%s %d", at.family.Base, at.day-today)
		}
		if at.andLater {
			text += " and later"
		}
		got = append(got, text)
		// Whoever goes on has the cursor only.
		p.next(at)
		cursor, err := p.cursor()
		if err != nil {
			t.Fatal(err)
		}
		if p, err = parsePlan(cursor); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"a/ 2 and later", "b/ 2 and later", "a/ 1", "b/ 1", "a/ 0", "b/ 0", "a/ -1", "band -1..0", "a/ -2", "band -3..-2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPlanHeedsTheScope(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	p := &plan{Families: []surveyed{{layout.Family{Base: "a/", Form: "hive"}, 0}}}
	p.finishSurvey(Scope{After: now.AddDate(0, 0, -10), Before: now.AddDate(0, 0, -5)}, now)
	first, ok := p.at()
	if !ok || first.day != dayOf(now)-3 || first.andLater {
		t.Errorf("got %+v", first)
	}
	if oldest, _ := p.oldest(); oldest != dayOf(now)-17 {
		t.Errorf("the oldest day is %d", oldest-dayOf(now))
	}
}

func TestCursorsThatAreNone(t *testing.T) {
	t.Parallel()
	for _, cursor := range []string{"no", `{"families":[{"base":"a/","form":"moon phase","first":1}]}`} {
		if _, err := parsePlan(cursor); err == nil {
			t.Errorf("%s was read", cursor)
		}
	}
}

func TestFamiliesTooManyAreWalked(t *testing.T) {
	t.Parallel()
	b := objectstest.Memory(t)
	var want []string
	for _, key := range []string{"a/2026/11/20/1", "a/2026/11/21/1", "b/plain", "c/2026/11/20/1", "c/2026/11/21/1", "d/2026/11/20/1", "e"} {
		if _, err := b.Put(t.Context(), key, strings.NewReader("x"), 1); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(key, "a/") {
			want = append(want, key)
		}
	}
	p := &plan{Surveyed: true, Families: []surveyed{{layout.Family{Base: "a/", Form: "digits"}, 0}}}
	walk := func(place string) (keys, places []string) {
		for s, err := range p.walk(context.Background(), b, "", place) {
			if err != nil {
				t.Fatal(err)
			}
			if s.First == nil {
				keys, places = append(keys, s.Object.Key), append(places, s.Place)
			}
		}
		return keys, places
	}
	got, places := walk("")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for i, place := range places {
		rest, _ := walk(place)
		if !slices.Equal(want[i+1:], rest) {
			t.Errorf("from %q: %q", place, rest)
		}
	}
}
