// SPDX-License-Identifier: AGPL-3.0-only

package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/lakeproto"
	compactorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/compactor/v1"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/stack"
)

// compactionFigures are what bringing the ingested segments into their final shape cost.
type compactionFigures struct {
	CPU, Wall time.Duration
	PeakRSS   int64 // bytes
	Before    int64 // segments
	After     storedFigures
}

// storedFigures are the live segments.
type storedFigures struct {
	Segments, Rows, Bytes, Sidecars int64 // Bytes without sidecars
}

// compact runs a compactor, in a process of its own, until it has nothing left to do.
func (w workplace) compact(ctx context.Context) (f compactionFigures, err error) {
	before, err := w.liveSegments(ctx)
	if err != nil {
		return f, err
	}
	f.Before = before.Segments
	cmd, err := w.child(ctx, "compact")
	if err != nil {
		return f, err
	}
	started := time.Now()
	if err := cmd.Run(); err != nil {
		return f, fmt.Errorf("compact: %w", err)
	}
	f.Wall = time.Since(started)
	usage := usageOf(cmd)
	f.CPU, f.PeakRSS = cpuOf(usage), usage.Maxrss*1024
	if f.After, err = w.liveSegments(ctx); err != nil {
		return f, err
	}
	if f.After.Rows != before.Rows {
		return f, fmt.Errorf("compaction made %d rows of %d", f.After.Rows, before.Rows)
	}
	return f, nil
}

// compactRole is the main function of the process whose cost is measured.
func compactRole(ctx context.Context, w workplace) error {
	services, err := stack.Start(ctx, stack.Options{
		Database: w.Database, ConfigFiles: []string{w.config()}, Dir: filepath.Join(w.Dir, "compact"), HTTP: "127.0.0.1:0", GRPC: "127.0.0.1:0",
		Roles: stack.Roles{Compactor: true}, Log: logger(),
		// The corpus's hours are over, and all of their data is there: they need not be watched for more.
		Tune: func(s *stack.ServiceSettings) { s.Compactor.Settle = time.Second },
	})
	if err != nil {
		return err
	}
	return errors.Join(w.awaitCompacted(ctx, services.GRPC), services.Stop(ctx))
}

// awaitCompacted waits until the plan of all windows that hold segments is empty.
func (w workplace) awaitCompacted(ctx context.Context, address string) error {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	start, end, err := w.extent(ctx)
	if err != nil {
		return err
	}
	service := compactorv1.NewCompactorServiceClient(conn)
	asked := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+w.APIKey)
	return poll(ctx, func() (bool, error) {
		plan, err := service.PlanCompaction(asked, &compactorv1.PlanCompactionRequest{
			Organization: organization, Signal: lakeproto.SignalProto(w.Signal), Start: timestamppb.New(start), End: timestamppb.New(end),
		})
		if err != nil {
			return false, err
		}
		for _, window := range plan.GetWindows() {
			if len(window.GetMerges()) > 0 {
				return false, nil
			}
		}
		return true, nil
	})
}

// poll asks until the answer is yes.
func poll(ctx context.Context, done func() (bool, error)) error {
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		if yes, err := done(); yes || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// extent is the stretch of time that has rows.
func (w workplace) extent(ctx context.Context) (start, end time.Time, err error) {
	segments, err := w.lookupAll(ctx)
	if err != nil {
		return start, end, err
	}
	for i, s := range segments {
		if i == 0 || s.Window.Start.Before(start) {
			start = s.Window.Start
		}
		if i == 0 || s.Window.End().After(end) {
			end = s.Window.End()
		}
	}
	return start, end, nil
}

func (w workplace) liveSegments(ctx context.Context) (f storedFigures, err error) {
	segments, err := w.lookupAll(ctx)
	for _, s := range segments {
		f.Segments++
		f.Rows += s.Rows
		f.Bytes += s.Bytes
		f.Sidecars += s.SidecarBytes
	}
	return f, err
}

func (w workplace) lookupAll(ctx context.Context) ([]lake.Segment, error) {
	idx, err := index.Open(ctx, index.Config{URL: w.Database, MaxConns: 1})
	if err != nil {
		return nil, err
	}
	defer idx.Close()
	answer, err := idx.Lookup(ctx, index.Query{
		Organization: organization, Signal: w.Signal, Start: time.Unix(0, 0), End: time.Now().Add(48 * time.Hour),
	})
	return answer.Segments, err
}
