// SPDX-License-Identifier: AGPL-3.0-only

package fan

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/apache/arrow-go/v18/arrow/ipc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/place"
)

// maxMessage is the largest message accepted from a worker.
const maxMessage = 256 << 20

// outcome is how one attempt ended.
type outcome struct {
	decoder    Decoder
	statistics *workerv1.ScanStatistics
	err        error
}

// hedged runs the batch on its worker, and on a second one if the first is slow. Statistics of the answer taken are counted.
func (r *run) hedged(ctx context.Context, b batch) (Decoder, error) {
	if r.scan.Tally.Spent() {
		return nil, r.scan.Tally.errBudget()
	}
	ctx, cancel := context.WithCancel(ctx)
	outcomes := make(chan outcome)
	attempts := 0
	start := func(w Worker) {
		attempts++
		go func() { outcomes <- r.attempt(ctx, w, b) }()
	}
	defer func() {
		cancel()
		for ; attempts > 0; attempts-- {
			<-outcomes
		}
	}()
	started := time.Now()
	start(b.worker)
	slow, stop := r.slowness()
	defer stop()

	var first error
	for {
		select {
		case o := <-outcomes:
			attempts--
			if o.err == nil {
				return r.accept(o, time.Since(started))
			}
			first = firstError(first, o.err)
			if attempts == 0 || !retryable(ctx, o.err) {
				return nil, first
			}
		case <-slow:
			if second, ok := r.second(b, time.Since(started)); ok {
				slow = nil
				r.scan.Tally.hedged()
				start(second)
			}
		}
	}
}

func (r *run) accept(o outcome, took time.Duration) (Decoder, error) {
	r.scan.Tally.add(o.statistics)
	r.mu.Lock()
	r.finished = append(r.finished, took)
	r.mu.Unlock()
	return o.decoder, nil
}

// slowness ticks when it is worth asking whether an attempt is slow.
func (r *run) slowness() (<-chan time.Time, func()) {
	after := r.fan.options.HedgeAfter
	if after < 0 {
		return nil, func() {}
	}
	ticker := time.NewTicker(after)
	return ticker.C, ticker.Stop
}

// second returns the worker for a hedge, if the attempt is far slower than its siblings. Without siblings to compare with,
// patience is four times as long: a cold cache is slow everywhere.
func (r *run) second(b batch, age time.Duration) (Worker, bool) {
	r.mu.Lock()
	finished := slices.Clone(r.finished)
	r.mu.Unlock()
	patience := 4 * r.fan.options.HedgeAfter
	if len(finished) > 0 {
		slices.Sort(finished)
		patience = 3 * finished[len(finished)/2]
	}
	if age < patience {
		return Worker{}, false
	}
	workers := slices.DeleteFunc(r.notDown(r.fan.workers()), func(w Worker) bool { return w.Name == b.worker.Name })
	if len(workers) == 0 {
		return Worker{}, false
	}
	return workers[place.First(b.key(), workerNames(workers))], true
}

// attempt asks one worker once.
func (r *run) attempt(ctx context.Context, w Worker, b batch) outcome {
	decoder := r.decoder(b)
	budget := r.scan.Tally.left()
	if budget < 0 {
		return outcome{err: r.scan.Tally.errBudget()}
	}
	stream, err := w.Client.Scan(ctx, r.request(b, budget), grpc.MaxCallRecvMsgSize(maxMessage))
	if err != nil {
		return outcome{err: classify(w.Name, err)}
	}
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return outcome{err: fault.New(fault.Unavailable, "worker %s ended a scan without its statistics", w.Name)}
		}
		if err != nil {
			return outcome{err: r.overspent(classify(w.Name, err), b.segments, budget)}
		}
		if err := decode(decoder, message.GetArrow()); err != nil {
			return outcome{err: err}
		}
		if s := message.GetStatistics(); s != nil {
			if ender, ok := decoder.(Ender); ok {
				ender.End(message)
			}
			return outcome{decoder: decoder, statistics: s}
		}
	}
}

// overspent turns a worker's refusal to read more than the rest of the budget into that of the query.
func (r *run) overspent(err error, segments []lake.Segment, budget int64) error {
	var bytes int64
	for i := range segments {
		bytes += segments[i].Bytes + segments[i].SidecarBytes
	}
	if budget == 0 || bytes <= budget || !errors.Is(err, fault.Exhausted) {
		return err
	}
	r.scan.Tally.spend()
	return r.scan.Tally.errBudget()
}

func decode(d Decoder, stream []byte) error {
	if len(stream) == 0 {
		return nil
	}
	reader, err := ipc.NewReader(bytes.NewReader(stream))
	if err != nil {
		return fault.Wrap(fault.Internal, fmt.Errorf("read a worker's answer: %w", err))
	}
	defer reader.Release()
	for reader.Next() {
		if err := d.Add(reader.RecordBatch()); err != nil {
			return err
		}
	}
	if err := reader.Err(); err != nil && !errors.Is(err, io.EOF) {
		return fault.Wrap(fault.Internal, fmt.Errorf("read a worker's answer: %w", err))
	}
	return nil
}

// classify gives a kind to errors of the transport, for connections without fault's interceptors.
func classify(worker string, err error) error {
	named := fmt.Errorf("worker %s: %w", worker, err)
	switch kind := fault.KindOf(err); kind {
	case fault.Invalid, fault.Unsupported:
		return err // the user's, who did not ask which worker
	case fault.Internal:
		return fault.Wrap(transportKind(err), named)
	default:
		return named
	}
}

func transportKind(err error) fault.Kind {
	switch status.Code(err) {
	case codes.Unavailable, codes.Aborted:
		return fault.Unavailable
	case codes.Canceled:
		return fault.Canceled
	case codes.DeadlineExceeded:
		return fault.Timeout
	}
	return fault.Internal
}

// retryable reports whether another worker might answer what this one did not.
func retryable(ctx context.Context, err error) bool {
	return ctx.Err() == nil && errors.Is(err, fault.Unavailable)
}

// firstError keeps the error of the first attempt, unless only a later one says something other than unavailable.
func firstError(first, next error) error {
	if first == nil || !errors.Is(next, fault.Unavailable) {
		return next
	}
	return first
}

func formatID(id lake.SegmentID) string { return strconv.FormatInt(int64(id), 10) }
