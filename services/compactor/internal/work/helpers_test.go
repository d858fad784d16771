// SPDX-License-Identifier: AGPL-3.0-only

package work_test

import (
	"context"

	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/segfile"
	"github.com/lakerunner/lakerunner/pkg/stage"
	"github.com/lakerunner/lakerunner/services/compactor/internal/work"
)

// changed are claims of which some verbs are another's.
type changed struct {
	stage.Claims
	other any
}

// claimsOf returns the index's verbs, but for those that other has.
func claimsOf(other interface{ verbs() *index.Index }) stage.Claims {
	return changed{Claims: other.verbs(), other: other}
}

func (f *fixture) verbs() *index.Index { return f.index }

func (c changed) Commit(ctx context.Context, lease *lake.Lease, edit lake.Edit) error {
	if o, ok := c.other.(interface {
		Commit(context.Context, *lake.Lease, lake.Edit) error
	}); ok {
		return o.Commit(ctx, lease, edit)
	}
	return c.Claims.Commit(ctx, lease, edit)
}

func (c changed) Release(ctx context.Context, lease *lake.Lease, cause error) error {
	if o, ok := c.other.(interface {
		Release(context.Context, *lake.Lease, error) error
	}); ok {
		return o.Release(ctx, lease, cause)
	}
	return c.Claims.Release(ctx, lease, cause)
}

func (c changed) Renew(ctx context.Context, lease lake.LeaseID) error {
	if o, ok := c.other.(interface {
		Renew(context.Context, lake.LeaseID) error
	}); ok {
		return o.Renew(ctx, lease)
	}
	return c.Claims.Renew(ctx, lease)
}

// newWorkerOf returns a worker on the fixture's lake with other settings.
func newWorkerOf(f *fixture, settings string) *work.Worker {
	f.t.Helper()
	source := f.source(settings)
	return work.New(work.Config{Scratch: f.scratch}, work.Deps{Index: f.index, Objects: store{f.bucket}, Config: source})
}

func lakeMeta(s lake.Segment) segfile.Meta {
	return segfile.Meta{Organization: s.Organization, Signal: s.Signal, Window: s.Window, Lease: "other", Sources: s.Sources}
}
