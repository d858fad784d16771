// SPDX-License-Identifier: AGPL-3.0-only

package backfill

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/services/notifier/internal/layout"
)

const (
	oneDay = 24 * time.Hour
	// maxFamilies bounds the plan; the keys of further families are walked like keys without time.
	maxFamilies = 1000
	// maxBands is how often keys without time are walked at most, minBand how many objects make a walk of their own worth it.
	maxBands = 8
	minBand  = 1000
	// lateBy is how much later than the time in its key an object may have been written; earlyBy allows for clocks in other zones.
	lateBy  = 7 * oneDay
	earlyBy = 2 * oneDay
)

// plan is a backfill's cursor: what the survey found, and the place in it. It is pure.
type plan struct {
	Surveyed bool `json:"surveyed"`
	// Place is where the survey or the slice at hand goes on: the key that was looked at last.
	Place    string          `json:"place,omitempty"`
	Families []surveyed      `json:"families,omitempty"` // those of most of the keys, in the order they were found
	Days     map[int64]int64 `json:"days,omitempty"`     // objects without time in their keys, by day since 1970; only until Surveyed
	Bands    []band          `json:"bands,omitempty"`    // the newest first
	// Newest is the first day to list, and all later ones with it: clocks can be wrong by years. Zero: Scope.Before bounds the days.
	Newest int64 `json:"newest,omitempty"`
	// Day, Family and Band are the slice at hand.
	Day    int64 `json:"day"`
	Family int   `json:"family"`
	Band   int   `json:"band"`
}

// surveyed is a family and its first day.
type surveyed struct {
	layout.Family
	First int64 `json:"first"` // days since 1970
}

// band is a stretch of days [From, To) of last modifications.
type band struct {
	From int64 `json:"from"`
	To   int64 `json:"to"`
}

// slice is a piece of a backfill: a family's day, or a band.
type slice struct {
	family   *layout.Family
	day      int64
	andLater bool
	band     band
}

func parsePlan(cursor string) (*plan, error) {
	p := &plan{Days: map[int64]int64{}}
	if cursor == "" {
		return p, nil
	}
	if err := json.Unmarshal([]byte(cursor), p); err != nil {
		return nil, fmt.Errorf("cursor of the backfill: %w", err)
	}
	for _, f := range p.Families {
		if !f.Valid() {
			return nil, fmt.Errorf("cursor of the backfill: unknown form of keys %q", f.Form)
		}
	}
	if p.Days == nil {
		p.Days = map[int64]int64{}
	}
	return p, nil
}

func (p *plan) cursor() (string, error) {
	text, err := json.Marshal(p)
	return string(text), err
}

// holds reports whether a family is part of the plan, so that a walk may jump over it.
func (p *plan) holds(f layout.Family) bool {
	return slices.ContainsFunc(p.Families, func(s surveyed) bool { return s.Family == f })
}

// add notes a family; false: there are too many, and it has to be walked.
func (p *plan) add(first layout.Partition) bool {
	if p.holds(first.Family) {
		return true
	}
	if len(p.Families) == maxFamilies {
		return false
	}
	p.Families = append(p.Families, surveyed{first.Family, dayOf(first.Start)})
	return true
}

// finishSurvey makes the bands and begins with the newest day.
func (p *plan) finishSurvey(s Scope, now time.Time) {
	p.Bands = bandsOf(p.Days)
	p.Days = nil
	p.Newest = dayOf(now.Add(earlyBy))
	p.Day = p.Newest
	if !s.Before.IsZero() && dayOf(s.Before.Add(earlyBy)) < p.Newest {
		p.Newest, p.Day = 0, dayOf(s.Before.Add(earlyBy))
	}
	if !s.After.IsZero() {
		oldest := dayOf(s.After.Add(-lateBy))
		for i := range p.Families {
			p.Families[i].First = max(p.Families[i].First, oldest)
		}
	}
	p.Surveyed, p.Place = true, ""
}

// bandsOf divides days, from the newest on, into bands of about as many objects each.
func bandsOf(days map[int64]int64) []band {
	var total int64
	all := make([]int64, 0, len(days))
	for day, n := range days {
		total += n
		all = append(all, day)
	}
	slices.SortFunc(all, func(a, b int64) int { return cmp.Compare(b, a) })
	share := max(minBand, (total+maxBands-1)/maxBands)
	var bands []band
	var gathered int64
	for i, day := range all {
		if i == 0 || gathered >= share {
			bands = append(bands, band{To: day + 1})
			gathered = 0
		}
		gathered += days[day]
		bands[len(bands)-1].From = day
	}
	return bands
}

// at is the slice at hand, or false when all is done. Slices come by their last day, the newest first; bands after the days that
// end with them.
func (p *plan) at() (slice, bool) {
	for {
		oldest, ok := p.oldest()
		days := ok && p.Day >= oldest
		bands := p.Band < len(p.Bands)
		switch {
		case bands && (!days || p.Bands[p.Band].To > p.Day+1):
			return slice{band: p.Bands[p.Band]}, true
		case !days:
			return slice{}, false
		case p.Family == len(p.Families):
			p.Day, p.Family = p.Day-1, 0
		case p.Families[p.Family].First > p.Day && p.Day != p.Newest:
			p.Family++
		default:
			f := p.Families[p.Family].Family
			return slice{family: &f, day: p.Day, andLater: p.Day == p.Newest}, true
		}
	}
}

// next leaves the slice at hand.
func (p *plan) next(s slice) {
	p.Place = ""
	if s.family == nil {
		p.Band++
		return
	}
	p.Family++
}

func (p *plan) oldest() (int64, bool) {
	if len(p.Families) == 0 {
		return 0, false
	}
	first := func(a, b surveyed) int { return cmp.Compare(a.First, b.First) }
	return slices.MinFunc(p.Families, first).First, true
}

// dayOf counts days since 1970.
func dayOf(t time.Time) int64 {
	seconds := t.Unix()
	day := seconds / 86400
	if seconds%86400 < 0 {
		day--
	}
	return day
}

func timeOfDay(day int64) time.Time { return time.Unix(day*86400, 0).UTC() }
