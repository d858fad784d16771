// SPDX-License-Identifier: AGPL-3.0-only

// Package pipeline turns a lease of ingest tasks into segments: it fetches the objects, decodes and maps their rows, sorts them into
// segments of one event hour each, uploads these, and says in an Edit what became of each receipt.
//
// Invariants, each the name of a test:
//
//   - Every receipt of the lease has exactly one outcome or retry in the edit.
//   - Rows in = rows out + rejected, for each object; rows of the edit's segments = rows out of all objects.
//   - A bad object's rows are in no segment of the edit; its neighbours' rows are all there.
//   - Working twice on the same lease gives the same rows.
//   - Memory is bounded by Config.Memory and one decoding, whatever the lease holds.
//   - However long the store is away, no object is buried for it.
//   - It deletes nothing in the bucket: files of a lease without a commit are the janitor's, which knows their folders before they are put.
//   - A row that a delete of data reaches is in no segment and in no file of rejected rows.
package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
)

// Config bounds one Worker.
type Config struct {
	// Memory is how many bytes of rows one lease's work holds at most. It writes segments when three quarters are used and an object
	// ends, or all in the middle of one. Zero: 256 MiB.
	Memory int64
	// Scratch is the directory for segment files until they are uploaded. Empty: the system's.
	Scratch string
	// Fetch is how many objects are fetched at a time. Zero: 2.
	Fetch int
	// MaxObjectBytes is the most that one object may become when decompressed. Zero: the decoder's default.
	MaxObjectBytes int64
}

// Index is what a Worker needs of the index.
type Index interface {
	Deletes(ctx context.Context, query index.DeleteQuery) (deletes []lake.Delete, latest lake.DeleteID, err error)
	Declare(ctx context.Context, lease lake.LeaseID, folders []string) error
}

// Deps are what a Worker needs.
type Deps struct {
	Index   Index
	Objects objects.Store
	Config  config.Source
	// Counters count what is done; the zero value counts nothing.
	Counters Counters
	// Checkpoint, if not nil, is called by name between any two steps. Tests end the process in it.
	Checkpoint func(name string)
}

// Worker works on leases. It is safe for concurrent use: each call of Work has memory of its own.
type Worker struct {
	config Config
	deps   Deps
	spare  sync.Pool // of *workspace
}

// New returns a Worker.
func New(c Config, d Deps) *Worker {
	c.Memory = cmp.Or(c.Memory, 256<<20)
	c.Fetch = cmp.Or(c.Fetch, 2)
	if d.Checkpoint == nil {
		d.Checkpoint = func(string) {}
	}
	w := &Worker{config: c, deps: d}
	w.spare.New = func() any { return newWorkspace() }
	return w
}

// Work is the stage's function. An error means that nothing of the lease was done; a problem of one object is that object's
// outcome, or its retry.
func (w *Worker) Work(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
	if len(lease.Receipts) != len(lease.Tasks) {
		return lake.Edit{}, fault.New(fault.Internal, "lease %s has %d tasks and %d receipts", lease.ID, len(lease.Tasks), len(lease.Receipts))
	}
	directory, err := os.MkdirTemp(w.config.Scratch, "ingest-")
	if err != nil {
		return lake.Edit{}, fault.Wrap(fault.Unavailable, fmt.Errorf("make scratch directory: %w", err))
	}
	defer os.RemoveAll(directory)
	space := w.spare.Get().(*workspace)
	defer func() {
		space.reset(w.config.Memory / keptPart)
		w.spare.Put(space)
	}()
	space.metrics.mapper.BeginOrganization()
	ctx, tally := objects.WithTally(ctx)
	r := newRun(w, lease, space, directory)
	edit, err := r.work(ctx)
	if err != nil {
		return lake.Edit{}, err
	}
	edit.Cost = lake.Cost{
		Puts: tally.Count(objects.RequestPut), Gets: tally.Count(objects.RequestGet),
		BytesRead: r.bytesRead.Load(), BytesWritten: r.writer.bytes.Load(),
	}
	return edit, nil
}

// keptPart is how large a part of the memory may be taken by what is only kept because it may be of use to the next rows.
const keptPart = 4

// run is the work on one lease.
type run struct {
	*Worker
	lease     *lake.Lease
	space     *workspace
	directory string
	snapshot  *config.Snapshot
	limits    config.Limits
	settings  metricSettings
	writer    *writer
	// finished are rows of objects that were decoded to their end.
	finished groups
	deletes  []deletion
	edit     lake.Edit
	// bytesRead are those of objects as they are stored.
	bytesRead atomic.Int64
}

func newRun(w *Worker, lease *lake.Lease, space *workspace, directory string) *run {
	snapshot := w.deps.Config.Current()
	limits := limitsOf(snapshot, lease.Organization)
	return &run{
		Worker: w, lease: lease, space: space, directory: directory, snapshot: snapshot,
		limits: limits, settings: metricSettingsOf(snapshot, lease.Organization, limits), writer: newWriter(w, lease, space, directory), finished: groups{},
	}
}

func limitsOf(s *config.Snapshot, id lake.Organization) config.Limits {
	if organization, ok := s.Organization(id); ok {
		return organization.Limits
	}
	return config.DefaultLimits()
}

func (r *run) work(ctx context.Context) (lake.Edit, error) {
	if err := r.readDeletes(ctx); err != nil {
		return lake.Edit{}, err
	}
	r.deps.Checkpoint("deletes-read")
	fetches := r.fetchAll(ctx)
	defer fetches.stop()
	for i := range r.lease.Receipts {
		f, err := fetches.next(ctx, i)
		if err == nil {
			err = r.receipt(ctx, i, f)
		}
		if err != nil {
			return lake.Edit{}, err
		}
		fetches.release()
	}
	if err := r.flush(ctx); err != nil {
		return lake.Edit{}, err
	}
	r.edit.Add = r.writer.segments
	r.edit.Next = next(r.lease, r.edit.Add, r.settings.finest)
	return r.edit, r.conserved()
}

// receipt works on one object. Its error is the whole lease's.
func (r *run) receipt(ctx context.Context, i int, f fetched) error {
	receipt := r.lease.Receipts[i]
	if f.err != nil {
		return r.unreadable(ctx, i, f.err)
	}
	defer f.close()
	r.deps.Checkpoint("fetched")
	c := newCollector(ctx, r, receipt)
	defer c.close()
	result, remarks, err := c.decode(f)
	if c.err != nil {
		return c.err
	}
	r.deps.Checkpoint("decoded")
	if err != nil {
		c.discard()
		return r.undecodable(ctx, i, result, err)
	}
	if err := c.keep(ctx); err != nil {
		return err
	}
	r.edit.Deleted = append(r.edit.Deleted, c.deletedRows()...)
	r.finish(c.outcome(result, remarks))
	if r.space.bytes() > r.config.Memory/4*3 {
		return r.flush(ctx)
	}
	return nil
}

// unreadable decides about an object that could not be read.
func (r *run) unreadable(ctx context.Context, i int, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, errMoved) {
		r.end(i, lake.ReceiptSkipped, err.Error())
		return nil
	}
	switch fault.KindOf(err) {
	case fault.NotFound:
		r.end(i, lake.ReceiptFailed, "the object is not there any more: "+err.Error())
	case fault.Conflict:
		r.end(i, lake.ReceiptSkipped, "the object was written again before it was read; its newer version has a receipt of its own")
	default:
		r.edit.Retry = append(r.edit.Retry, lake.Retry{Task: r.lease.Tasks[i].ID, Cause: err.Error(), Blameless: passes(err)})
		r.deps.Counters.object("retried")
	}
	return nil
}

// passes reports whether an error is the store's and not the object's: during an outage every object fails, and none is to blame.
func passes(err error) bool {
	kind := fault.KindOf(err)
	return kind == fault.Unavailable || kind == fault.Timeout || kind == fault.Canceled
}

// undecodable decides about an object whose decoding ended with an error.
func (r *run) undecodable(ctx context.Context, i int, result decode.Result, err error) error {
	receipt := r.lease.Receipts[i]
	state := lake.ReceiptFailed
	switch {
	case decode.IsUnsupported(err):
		state = lake.ReceiptSkipped
	case fault.KindOf(err) != fault.Invalid:
		return r.unreadable(ctx, i, err)
	}
	r.finish(lake.Outcome{
		Receipt: receipt.ID, State: state, Signal: cmp.Or(result.Signal, receipt.Signal), Format: result.Format, Reason: reasonOf(err),
	})
	return nil
}

// maxReason bounds what an error puts on a receipt.
const maxReason = 1024

func reasonOf(err error) string {
	s := err.Error()
	if errors.Is(err, decode.ErrUnsupported) {
		s = strings.TrimSuffix(s, ": "+decode.ErrUnsupported.Error())
	}
	return s[:min(len(s), maxReason)]
}

func (r *run) end(i int, state lake.ReceiptState, reason string) {
	receipt := r.lease.Receipts[i]
	r.finish(lake.Outcome{Receipt: receipt.ID, State: state, Signal: receipt.Signal, Reason: reason[:min(len(reason), maxReason)]})
}

func (r *run) finish(o lake.Outcome) {
	r.edit.Outcomes = append(r.edit.Outcomes, o)
	r.deps.Counters.outcome(o)
}

// flush writes what is finished and forgets all rows.
func (r *run) flush(ctx context.Context) error {
	segments, err := r.writer.write(ctx, r.finished)
	if err != nil {
		return err
	}
	r.writer.add(segments)
	clear(r.finished)
	r.space.reset(r.config.Memory / keptPart)
	return nil
}

// conserved checks that the edit has as many rows as its outcomes say.
func (r *run) conserved() error {
	var out, segments int64
	for _, o := range r.edit.Outcomes {
		out += o.RowsOut
		rejected := int64(0)
		for _, n := range o.Rejected {
			rejected += n
		}
		if o.RowsIn != o.RowsOut+rejected {
			return fault.New(fault.Internal, "receipt %d: %d rows in, %d out, %d rejected", o.Receipt, o.RowsIn, o.RowsOut, rejected)
		}
	}
	for _, s := range r.edit.Add {
		segments += s.Rows
	}
	if out != segments {
		return fault.New(fault.Internal, "objects gave %d rows and segments hold %d", out, segments)
	}
	return nil
}

// groupKey is what the rows of one segment have in common.
type groupKey struct {
	signal lake.Signal
	bucket string
	hour   int64
}

// group is the rows of one segment.
type group struct {
	rows    []uint32
	sources []lake.ReceiptID
}

type groups map[groupKey]*group

func (g groups) at(k groupKey) *group {
	if g[k] == nil {
		g[k] = &group{}
	}
	return g[k]
}

// merge moves other's rows into g.
func (g groups) merge(other groups) {
	for k, from := range other {
		into := g.at(k)
		into.rows = append(into.rows, from.rows...)
		into.sources = append(into.sources, from.sources...)
	}
	clear(other)
}

// keys are g's in order, so that working twice writes the same files.
func (g groups) keys() []groupKey {
	keys := make([]groupKey, 0, len(g))
	for k := range g {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b groupKey) int {
		return cmp.Or(cmp.Compare(a.signal, b.signal), cmp.Compare(a.bucket, b.bucket), cmp.Compare(a.hour, b.hour))
	})
	return keys
}

func (k groupKey) window() lake.Window {
	return lake.Window{Start: time.Unix(k.hour*3600, 0).UTC(), Length: time.Hour}
}

func label(name string, n int) string { return name + "-" + strconv.Itoa(n) }
