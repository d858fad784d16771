// SPDX-License-Identifier: AGPL-3.0-only

package layout

import (
	"context"
	"iter"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// Step is what a walk meets: an object outside of all families, or the first object of a family.
type Step struct {
	Object objects.Attributes
	// First is the family's first partition; nil for an object outside of families.
	First *Partition
	// Place is where a walk that was left goes on.
	Place string
}

// Walk visits the objects under a prefix in key order from a place ("": the beginning), but jumps over families after their first
// object, and over LakeRunner's own files. A jump costs one LIST. Files that stand between the folders of a family are jumped over too.
func Walk(ctx context.Context, b objects.Bucket, prefix, place string) iter.Seq2[Step, error] {
	return func(yield func(Step, error) bool) {
		for {
			next, more := walkOn(ctx, b, prefix, place, yield)
			if !more {
				return
			}
			place = next
		}
	}
}

// walkOn visits until something has to be jumped over.
func walkOn(ctx context.Context, b objects.Bucket, prefix, place string, yield func(Step, error) bool) (next string, more bool) {
	for a, err := range b.List(ctx, prefix, place) {
		if err != nil {
			yield(Step{}, err)
			return "", false
		}
		if lake.OwnKey(a.Key) {
			return lake.Prefix + behind, true
		}
		p, found := Of(a.Key, prefix)
		if !found {
			if !yield(Step{Object: a, Place: a.Key}, nil) {
				return "", false
			}
			continue
		}
		return p.End(), yield(Step{Object: a, First: &p, Place: p.End()}, nil)
	}
	return "", false
}
