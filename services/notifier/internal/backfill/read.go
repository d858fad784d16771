// SPDX-License-Identifier: AGPL-3.0-only

package backfill

import (
	"context"
	"iter"

	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/services/notifier/internal/layout"
)

// walk visits the objects of a scope's prefix that no family of the plan holds. While the survey is under way it notes new families.
func (p *plan) walk(ctx context.Context, b objects.Bucket, prefix, place string) iter.Seq2[layout.Step, error] {
	return func(yield func(layout.Step, error) bool) {
		for {
			surplus, more := p.walkOn(ctx, b, prefix, place, yield)
			if !more {
				return
			}
			// A family too many: its keys are read one by one.
			if place, more = readFamily(ctx, b, surplus, place, yield); !more {
				return
			}
		}
	}
}

// walkOn visits until it meets a family that the plan does not hold.
func (p *plan) walkOn(ctx context.Context, b objects.Bucket, prefix, place string, yield func(layout.Step, error) bool) (surplus layout.Family, more bool) {
	for s, err := range layout.Walk(ctx, b, prefix, place) {
		if err != nil {
			yield(layout.Step{}, err)
			return layout.Family{}, false
		}
		if s.First != nil && !p.admits(*s.First) {
			return s.First.Family, true
		}
		if !yield(s, nil) {
			return layout.Family{}, false
		}
	}
	return layout.Family{}, false
}

func (p *plan) admits(first layout.Partition) bool {
	if p.Surveyed {
		return p.holds(first.Family)
	}
	return p.add(first)
}

// readFamily visits a family's objects after a place, and returns the place behind it.
func readFamily(ctx context.Context, b objects.Bucket, f layout.Family, place string, yield func(layout.Step, error) bool) (behind string, more bool) {
	for a, err := range b.List(ctx, f.Prefix(), after(place, f)) {
		if err != nil {
			yield(layout.Step{}, err)
			return "", false
		}
		if a.Key > f.End() {
			break
		}
		if !yield(layout.Step{Object: a, Place: a.Key}, nil) {
			return "", false
		}
	}
	return f.End(), true
}

// after is a place inside the family, or its beginning: stores want a place to begin with the prefix.
func after(place string, f layout.Family) string {
	if place > f.Prefix() {
		return place
	}
	return ""
}

// list visits the objects of a family's slice after a place.
func (s slice) list(ctx context.Context, b objects.Bucket, place string) iter.Seq2[objects.Attributes, error] {
	day := s.family.Day(timeOfDay(s.day))
	if !s.andLater {
		return b.List(ctx, day, place)
	}
	return func(yield func(objects.Attributes, error) bool) {
		for a, err := range b.List(ctx, s.family.Prefix(), max(place, day)) {
			if err == nil && a.Key > s.family.End() || !yield(a, err) {
				return
			}
		}
	}
}
