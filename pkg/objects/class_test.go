// SPDX-License-Identifier: AGPL-3.0-only

package objects_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/local/s3/s3test"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// forgetful loses the answer of its first move.
type forgetful struct {
	objects.Bucket
	moves int
}

func (b *forgetful) SetStorageClass(ctx context.Context, key, tag, class string) (objects.Attributes, error) {
	a, err := b.Bucket.SetStorageClass(ctx, key, tag, class)
	if b.moves++; b.moves == 1 && err == nil {
		return objects.Attributes{}, fault.New(fault.Unavailable, "the answer is lost")
	}
	return a, err
}

func TestAMoveWhoseAnswerWasLostIsMadeOnce(t *testing.T) {
	t.Parallel()
	bare := s3test.New(t)
	stored, err := bare.Put(t.Context(), "k", strings.NewReader("content"), 7)
	if err != nil {
		t.Fatal(err)
	}
	lossy := &forgetful{Bucket: bare}
	b := objects.WithRetry(lossy, objects.Retries{First: time.Millisecond, Longest: time.Millisecond})
	moved, err := b.SetStorageClass(t.Context(), "k", stored.Tag, "STANDARD_IA")
	if err != nil || moved.MovedFrom != stored.Tag || moved.Size != 7 || lossy.moves != 1 {
		t.Errorf("got %+v after %d moves, %v", moved, lossy.moves, err)
	}
}
