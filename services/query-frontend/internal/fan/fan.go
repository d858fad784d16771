// SPDX-License-Identifier: AGPL-3.0-only

// Package fan asks workers to scan segments and brings their answers together.
//
// Invariants:
//
//  1. Each segment's answer is taken exactly once, or the scan as a whole fails. An attempt's batches are decoded aside and
//     handed over only when its stream ended well, so a worker that dies half way leaves nothing behind.
//  2. A worker that is unavailable is not asked again by the same scan while others are left; its segments go to the next
//     workers of their own rendezvous order.
//  3. A slow attempt is hedged once, on another worker. The first answer wins and the other is cancelled.
//  4. A missing segment is fault.MissingSegment, never silence. Errors that would be the same elsewhere are not retried.
//  5. Segments whose rows may be doubles of one another are asked of one worker in one scan (see place.Unit).
//  6. When ctx ends, or one part fails, all streams are cancelled at once.
//  7. A Part is asked of one worker in one scan, and parts are spread evenly: parts of one key go to the same worker.
//
// It knows nothing of query languages.
package fan

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/lakeproto"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/place"
)

// Worker is one that can be asked now.
type Worker struct {
	Name   string
	Client workerv1.WorkerServiceClient
}

// Options bounds the scans. Zero values stand for the defaults.
type Options struct {
	Concurrency   int           // scans at a time of one query and worker; 4
	BatchSegments int           // most segments in one scan; 64
	BatchBytes    int64         // most bytes of segments in one scan, one segment excepted; 256 MiB
	SplitBytes    int64         // a worker's share is split over its concurrency into scans no smaller than this; 256 MiB: a worker shares a scan among its own threads
	HedgeAfter    time.Duration // a scan this old that is far slower than others is hedged; 3 s. Negative: never
	RetryDelay    time.Duration // before all workers are tried again; 200 ms, doubled each round
	Rounds        int           // times that all workers may be unavailable before giving up; 3
}

func (o Options) withDefaults() Options {
	defaultTo(&o.Concurrency, 4)
	defaultTo(&o.BatchSegments, 64)
	defaultTo(&o.BatchBytes, 256<<20)
	defaultTo(&o.SplitBytes, 256<<20)
	defaultTo(&o.HedgeAfter, 3*time.Second)
	defaultTo(&o.RetryDelay, 200*time.Millisecond)
	defaultTo(&o.Rounds, 3)
	return o
}

func defaultTo[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Fan asks workers. Safe for concurrent use.
type Fan struct {
	workers func() []Worker
	options Options
}

// New returns a Fan over the workers that are there whenever it is asked.
func New(workers func() []Worker, options Options) *Fan {
	return &Fan{workers: workers, options: options.withDefaults()}
}

// Decoder takes in the answer of one attempt.
type Decoder interface {
	Add(arrow.RecordBatch) error
}

// Ender is a Decoder that is told the last message of its attempt, which has statistics and no batch.
type Ender interface {
	End(*workerv1.ScanResponse)
}

// Part is a question to one worker.
type Part struct {
	// Key places it.
	Key      string
	Segments []lake.Segment
	// Fragment, NewDecoder and Done are as those of a Scan.
	Fragment   func(*workerv1.ScanRequest)
	NewDecoder func() Decoder
	Done       func(Decoder) error
	// Failed, if it is set, returns what an error of the worker's means that is not to be asked again elsewhere.
	Failed func(error) error
}

// Scan is one question to all workers.
type Scan struct {
	Organization lake.Organization
	QueryID      string
	Segments     []lake.Segment
	// Deletes are those of data that may mask rows of the segments, by rising number.
	Deletes []lake.Delete
	// Fragment sets the question; it must not set the segments.
	Fragment func(*workerv1.ScanRequest)
	// NewDecoder makes a decoder for an attempt over segments.
	NewDecoder func(segments []lake.Segment) Decoder
	// Done takes the decoder of an attempt that ended well. It is never called concurrently.
	Done  func(Decoder) error
	Tally *Tally
	// Whole asks one worker for all segments in one scan.
	Whole bool
	// Parts, if there are any, are asked in place of Segments, Fragment, NewDecoder, Done and Whole. Those without segments are left out.
	Parts []Part
}

// Workers returns how many workers there are now.
func (f *Fan) Workers() int { return len(f.workers()) }

// Parallel returns how many scans one query may have under way.
func (f *Fan) Parallel() int { return max(1, len(f.workers())) * f.options.Concurrency }

// Run asks, and returns when all answers were taken or one part failed for good.
func (f *Fan) Run(ctx context.Context, scan Scan) error {
	parts := parts(scan.Parts)
	if len(scan.Segments) == 0 && len(parts) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &run{fan: f, scan: scan, down: map[string]bool{}, slots: map[string]chan struct{}{}}
	err := r.spread(ctx, scan.Segments, parts)
	if err != nil && ctx.Err() != nil {
		return endOf(ctx, err)
	}
	return err
}

// endOf prefers the reason why ctx ended to what that looked like from a stream.
func endOf(ctx context.Context, err error) error {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, context.DeadlineExceeded):
		return fault.Wrap(fault.Timeout, cause)
	case errors.Is(cause, context.Canceled):
		return fault.Wrap(fault.Canceled, cause)
	}
	return err
}

// run is one Scan under way.
type run struct {
	fan  *Fan
	scan Scan

	mu       sync.Mutex
	down     map[string]bool // workers found unavailable
	slots    map[string]chan struct{}
	rounds   int
	finished []time.Duration // of scans that ended well

	done sync.Mutex // serialises scan.Done
}

// parts returns those that have segments.
func parts(all []Part) []*Part {
	var out []*Part
	for i := range all {
		if len(all[i].Segments) > 0 {
			out = append(out, &all[i])
		}
	}
	return out
}

// spread places segments, or parts, on the workers that are left and scans them there.
func (r *run) spread(ctx context.Context, segments []lake.Segment, parts []*Part) error {
	workers, err := r.available(ctx)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	batches := spreadParts(parts, workers)
	if len(parts) == 0 {
		batches = r.batches(segments, workers)
	}
	for _, batch := range batches {
		group.Go(func() error { return r.scanBatch(ctx, batch) })
	}
	return group.Wait()
}

// available returns the workers not found down; when all are, it waits and forgives them, a few times.
func (r *run) available(ctx context.Context) ([]Worker, error) {
	for {
		all := r.fan.workers()
		if left := r.notDown(all); len(left) > 0 {
			return left, nil
		}
		delay, ok := r.nextRound()
		if !ok {
			return nil, fault.New(fault.Unavailable, "no query worker is available (%d known)", len(all))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(delay):
		}
	}
}

func (r *run) notDown(all []Worker) []Worker {
	r.mu.Lock()
	defer r.mu.Unlock()
	var left []Worker
	for _, w := range all {
		if !r.down[w.Name] {
			left = append(left, w)
		}
	}
	return left
}

func (r *run) nextRound() (time.Duration, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rounds >= r.fan.options.Rounds {
		return 0, false
	}
	delay := r.fan.options.RetryDelay << r.rounds
	r.rounds++
	clear(r.down)
	return delay, true
}

func (r *run) markDown(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down[name] = true
}

// batch is what one worker is asked in one scan.
type batch struct {
	worker   Worker
	segments []lake.Segment
	part     *Part // nil: the scan's own question
}

// key places the batch.
func (b *batch) key() string {
	if b.part != nil {
		return b.part.Key
	}
	return b.segments[0].Key
}

func (b *batch) failed(err error) error {
	if b.part != nil && b.part.Failed != nil {
		return b.part.Failed(err)
	}
	return err
}

// spreadParts gives each worker about as many keys as each other.
func spreadParts(parts []*Part, workers []Worker) []batch {
	keys := make([]string, len(parts))
	for i, p := range parts {
		keys[i] = p.Key
	}
	placed := place.Spread(keys, workerNames(workers))
	out := make([]batch, len(parts))
	for i, p := range parts {
		out[i] = batch{worker: workers[placed[p.Key]], segments: p.Segments, part: p}
	}
	return out
}

func (r *run) batches(segments []lake.Segment, workers []Worker) []batch {
	names := workerNames(workers)
	if r.scan.Whole {
		return []batch{{worker: workers[place.First(segments[0].Key, names)], segments: segments}}
	}
	shares := make([][]place.Unit, len(workers))
	for _, unit := range place.Units(segments) {
		w := place.First(unit.Key, names)
		shares[w] = append(shares[w], unit)
	}
	var out []batch
	for w, share := range shares {
		for _, part := range r.split(share) {
			out = append(out, batch{worker: workers[w], segments: part})
		}
	}
	return out
}

// split cuts a worker's share into scans, between units.
func (r *run) split(share []place.Unit) [][]lake.Segment {
	var total int64
	for i := range share {
		total += share[i].Bytes
	}
	o := r.fan.options
	target := min(o.BatchBytes, max(o.SplitBytes, total/int64(o.Concurrency)+1))
	var (
		out  [][]lake.Segment
		part []lake.Segment
		held int64
	)
	for _, unit := range share {
		if len(part) > 0 && (held+unit.Bytes > target || len(part)+len(unit.Segments) > o.BatchSegments) {
			out, part, held = append(out, part), nil, 0
		}
		part, held = append(part, unit.Segments...), held+unit.Bytes
	}
	if len(part) > 0 {
		out = append(out, part)
	}
	return out
}

func workerNames(workers []Worker) []string {
	names := make([]string, len(workers))
	for i, w := range workers {
		names[i] = w.Name
	}
	return names
}

// scanBatch scans one batch, elsewhere if its worker is unavailable.
func (r *run) scanBatch(ctx context.Context, b batch) error {
	release, err := r.slot(ctx, b.worker.Name)
	if err != nil {
		return err
	}
	decoder, err := r.hedged(ctx, b)
	release()
	if err == nil {
		return r.take(b, decoder)
	}
	if !retryable(ctx, err) {
		return b.failed(err)
	}
	r.markDown(b.worker.Name)
	r.scan.Tally.retried()
	if b.part != nil {
		return r.spread(ctx, nil, []*Part{b.part})
	}
	return r.spread(ctx, b.segments, nil)
}

func (r *run) take(b batch, d Decoder) error {
	r.done.Lock()
	defer r.done.Unlock()
	if b.part != nil {
		return b.part.Done(d)
	}
	return r.scan.Done(d)
}

func (r *run) decoder(b batch) Decoder {
	if b.part != nil {
		return b.part.NewDecoder()
	}
	return r.scan.NewDecoder(b.segments)
}

// slot waits until the worker has room for one more scan of this query.
func (r *run) slot(ctx context.Context, name string) (release func(), err error) {
	r.mu.Lock()
	slots, ok := r.slots[name]
	if !ok {
		slots = make(chan struct{}, r.fan.options.Concurrency)
		r.slots[name] = slots
	}
	r.mu.Unlock()
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (r *run) request(b batch, budget int64) *workerv1.ScanRequest {
	segments := b.segments
	req := &workerv1.ScanRequest{
		Organization: string(r.scan.Organization),
		Signal:       lakeproto.SignalProto(readAs(segments[0])),
		Segments:     make([]*workerv1.Segment, len(segments)),
		MaxBytes:     budget,
		QueryId:      r.scan.QueryID,
	}
	for i := range segments {
		req.Segments[i] = segmentOf(&segments[i])
	}
	for i := range r.scan.Deletes {
		if d := &r.scan.Deletes[i]; reaches(d, segments) {
			req.Deletes = append(req.Deletes, &workerv1.Delete{
				DeleteId: int64(d.ID), Selector: d.Selector, Start: timestamppb.New(d.Start), End: timestamppb.New(d.End),
			})
		}
	}
	if b.part != nil {
		b.part.Fragment(req)
	} else {
		r.scan.Fragment(req)
	}
	return req
}

// readAs is the signal whose readers read a segment. Rollups are series, whatever they count.
func readAs(s lake.Segment) lake.Signal {
	if s.Resolution > 0 {
		return lake.SignalMetrics
	}
	return s.Signal
}

// reaches reports whether a delete may mask rows of one of the segments.
func reaches(d *lake.Delete, segments []lake.Segment) bool {
	return slices.ContainsFunc(segments, func(s lake.Segment) bool {
		return s.AppliedDelete < d.ID && s.Signal == d.Signal && !s.LastTime.Before(d.Start) && s.FirstTime.Before(d.End)
	})
}

func segmentOf(s *lake.Segment) *workerv1.Segment {
	masked := make([]uint32, len(s.MaskedSources))
	for i, id := range s.MaskedSources {
		masked[i] = uint32(id)
	}
	return &workerv1.Segment{
		SegmentId:     formatID(s.ID),
		Bucket:        s.Bucket,
		Key:           s.Key,
		Bytes:         s.Bytes,
		Rows:          s.Rows,
		FirstTime:     timestamppb.New(s.FirstTime),
		LastTime:      timestamppb.New(s.LastTime),
		MaskedSources: masked,
		SidecarBytes:  s.SidecarBytes,
		AppliedDelete: int64(s.AppliedDelete),
		Identified:    s.Identified,
		Lease:         merged(s),
		Resolution:    resolutionOf(s),
		Shard:         ShardProto(s.Shard),
	}
}

func resolutionOf(s *lake.Segment) *durationpb.Duration {
	if s.Resolution == 0 {
		return nil
	}
	return durationpb.New(s.Resolution)
}

// ShardProto returns a shard as fragments have it; nil for all series.
func ShardProto(s lake.Shard) *workerv1.Shard {
	if s.Whole() {
		return nil
	}
	return &workerv1.Shard{Index: s.Index, Count: s.Count}
}

// merged is the lease that added a segment, if its rows have no doubles among those that the lease added: ingest leaves them in.
func merged(s *lake.Segment) string {
	if s.Level == 0 {
		return ""
	}
	return string(s.Lease)
}
