// SPDX-License-Identifier: AGPL-3.0-only

package stage_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/stage"
)

// TestRunOverTheIndex takes objects through the real index, some of whose work fails at first.
func TestRunOverTheIndex(t *testing.T) {
	t.Parallel()
	const objects = 60
	x := indextest.New(t)
	ctx, stop := context.WithCancel(t.Context())
	var tries atomic.Int64
	ran := make(chan error, 1)
	go func() {
		batch := index.Batch{Kind: lake.TaskIngest, MaxTasks: 10, MaxAttempts: 10}
		ran <- stage.Run(ctx, x, stage.Options{Batch: batch, Workers: 4}, func(_ context.Context, lease *lake.Lease) (lake.Edit, error) {
			if tries.Add(1) == 2 {
				return lake.Edit{}, errors.New("stumbled")
			}
			var edit lake.Edit
			for _, r := range lease.Receipts {
				edit.Outcomes = append(edit.Outcomes, lake.Outcome{Receipt: r.ID, State: lake.ReceiptSkipped, Reason: "test"})
			}
			return edit, nil
		})
	}()
	for i := range objects {
		notice := index.Notice{Object: lake.Object{Bucket: "b", Key: fmt.Sprint(i), Tag: "1", Size: 1}, Organization: "acme"}
		if _, err := x.Receive(t.Context(), []index.Notice{notice}); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for finished := 0; finished < objects; {
		receipts, _, err := x.Receipts(t.Context(), index.ReceiptQuery{Organization: "acme", State: lake.ReceiptSkipped, PageSize: 1000})
		if err != nil {
			t.Fatal(err)
		}
		finished = len(receipts)
		select {
		case <-deadline:
			t.Fatalf("%d of %d objects were finished", finished, objects)
		case <-tick.C:
		}
	}
	stop()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}
