// SPDX-License-Identifier: AGPL-3.0-only

package objects_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/metric/noop"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/pkg/objects/objectstest"
)

func TestWrappersConform(t *testing.T) {
	t.Parallel()
	meter := noop.NewMeterProvider().Meter("")
	t.Run("standard", func(t *testing.T) {
		t.Parallel()
		objectstest.Conformance(t, func(t *testing.T) objects.Bucket {
			t.Helper()
			return objects.Standard(directory(t), meter)
		})
	})
	t.Run("standard around a store that breaks", func(t *testing.T) {
		t.Parallel()
		objectstest.Conformance(t, func(t *testing.T) objects.Bucket {
			t.Helper()
			return objects.WithRetry(&flaky{Bucket: directory(t)}, quick)
		})
	})
}

// quick tries often and soon.
var quick = objects.Retries{Tries: 8, First: time.Microsecond, Longest: time.Microsecond}

func TestRetry(t *testing.T) {
	t.Parallel()
	t.Run("gives up after its tries", func(t *testing.T) {
		t.Parallel()
		b := &failing{Bucket: directory(t), err: fault.New(fault.Unavailable, "slow down")}
		_, err := objects.WithRetry(b, quick).Head(t.Context(), "k")
		if !errors.Is(err, fault.Unavailable) || b.asked.Load() != 8 {
			t.Errorf("got %v after %d tries", err, b.asked.Load())
		}
	})
	t.Run("does not try again what is final", func(t *testing.T) {
		t.Parallel()
		for _, kind := range []fault.Kind{fault.NotFound, fault.Denied, fault.Conflict, fault.Invalid, fault.Canceled, fault.Timeout, fault.Internal} {
			b := &failing{Bucket: directory(t), err: fault.New(kind, "no")}
			_, err := objects.WithRetry(b, quick).Head(t.Context(), "k")
			if !errors.Is(err, kind) || b.asked.Load() != 1 {
				t.Errorf("%s: got %v after %d tries", kind, err, b.asked.Load())
			}
		}
	})
	t.Run("does not try a put if absent again", func(t *testing.T) {
		t.Parallel()
		b := &failing{Bucket: directory(t), err: fault.New(fault.Unavailable, "slow down")}
		_, err := objects.WithRetry(b, quick).PutIfAbsent(t.Context(), "k", strings.NewReader("x"), 1)
		if !errors.Is(err, fault.Unavailable) || b.asked.Load() != 1 {
			t.Errorf("got %v after %d tries", err, b.asked.Load())
		}
	})
	t.Run("does not wait longer than its context", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		b := &failing{Bucket: directory(t), err: fault.New(fault.Unavailable, "slow down")}
		_, err := objects.WithRetry(b, objects.Retries{First: time.Hour, Longest: time.Hour}).Head(ctx, "k")
		if !errors.Is(err, fault.Unavailable) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("does not mix two versions in one body", func(t *testing.T) {
		t.Parallel()
		d := directory(t)
		old := strings.Repeat("old", 10_000)
		if _, err := d.Put(t.Context(), "k", strings.NewReader(old), int64(len(old))); err != nil {
			t.Fatal(err)
		}
		b := objects.WithRetry(&flaky{Bucket: d}, quick)
		body, _, err := b.Get(t.Context(), "k", "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Put(t.Context(), "k", strings.NewReader("new"), 3); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(body); !errors.Is(err, fault.Conflict) {
			t.Errorf("got %v, want conflict", err)
		}
		if err := body.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	deadlines := objects.Deadlines{Request: 20 * time.Millisecond, Stall: 20 * time.Millisecond}
	setup := func(t *testing.T) (objects.Bucket, objects.Bucket) {
		t.Helper()
		d := directory(t)
		if _, err := d.Put(t.Context(), "k", strings.NewReader("0123456789"), 10); err != nil {
			t.Fatal(err)
		}
		return objects.WithDeadline(&hanging{Bucket: d}, deadlines), d
	}
	t.Run("ends a request that is not answered", func(t *testing.T) {
		t.Parallel()
		b, _ := setup(t)
		if _, err := b.Head(t.Context(), "k"); !errors.Is(err, fault.Unavailable) {
			t.Errorf("got %v, want unavailable", err)
		}
	})
	t.Run("ends a body that stalls", func(t *testing.T) {
		t.Parallel()
		b, _ := setup(t)
		body, _, err := b.Get(t.Context(), "k", "")
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(body)
		if string(got) != "01234" || !errors.Is(err, fault.Unavailable) {
			t.Errorf("got %q, %v; want half of it, unavailable", got, err)
		}
		if err := body.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("ends a listing that stalls", func(t *testing.T) {
		t.Parallel()
		b, _ := setup(t)
		var last error
		for _, err := range b.List(t.Context(), "", "") {
			last = err
		}
		if !errors.Is(last, fault.Unavailable) {
			t.Errorf("got %v, want unavailable", last)
		}
	})
	t.Run("leaves the caller's own deadline what it is", func(t *testing.T) {
		t.Parallel()
		_, d := setup(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := objects.WithDeadline(&hanging{Bucket: d}, objects.Deadlines{Request: time.Hour}).Head(ctx, "k")
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the context's", err)
		}
	})
	t.Run("does not count what its reader takes", func(t *testing.T) {
		t.Parallel()
		_, d := setup(t)
		b := objects.WithDeadline(d, deadlines)
		for _, err := range b.List(t.Context(), "", "") {
			if err != nil {
				t.Fatal(err)
			}
			<-time.After(3 * deadlines.Request)
		}
		body, _, err := b.Get(t.Context(), "k", "")
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(3 * deadlines.Stall)
		if got, err := io.ReadAll(body); err != nil || string(got) != "0123456789" {
			t.Errorf("got %q, %v", got, err)
		}
		if err := body.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	reader := sdk.NewManualReader()
	meter := sdk.NewMeterProvider(sdk.WithReader(reader)).Meter("test")
	b := objects.WithMetrics(memory(t), meter)
	ctx, tally := objects.WithTally(t.Context())

	const big = 65 << 20 // five parts, begin and end
	if _, err := b.Put(ctx, "big", bytes.NewReader(make([]byte, big)), big); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(ctx, "k", strings.NewReader("0123456789"), 10); err != nil {
		t.Fatal(err)
	}
	body, err := b.GetRange(ctx, "k", 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, body); err != nil {
		t.Fatal(err)
	}
	if err := body.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Head(ctx, "missing"); !errors.Is(err, fault.NotFound) {
		t.Fatal(err)
	}
	for _, err := range b.List(ctx, "", "") {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Delete(ctx, "k", "big"); err != nil {
		t.Fatal(err)
	}

	want := map[string]float64{
		"requests put ok": 8, "requests get ok": 1, "requests head not_found": 1, "requests list ok": 1, "requests delete ok": 1,
		"bytes out": big + 10, "bytes in": 3,
		"price put": 8 * 0.005 / 1000, "price get": 0.0004 / 1000, "price head": 0.0004 / 1000, "price list": 0.005 / 1000, "price delete": 0,
	}
	near := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-12 })
	if diff := cmp.Diff(want, counters(t, reader), near); diff != "" {
		t.Error(diff)
	}
	if tally.Total() != 12 || tally.Count(objects.RequestPut) != 8 {
		t.Errorf("tally: %d requests, %d puts", tally.Total(), tally.Count(objects.RequestPut))
	}
}

// counters returns the sums by short name and attribute values.
func counters(t *testing.T, reader sdk.Reader) map[string]float64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, m := range all.ScopeMetrics[0].Metrics {
		short := strings.TrimPrefix(m.Name, "lakerunner.objects.")
		switch sum := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range sum.DataPoints {
				got[named(short, p)] = float64(p.Value)
			}
		case metricdata.Sum[float64]:
			for _, p := range sum.DataPoints {
				got[named(short, p)] = p.Value
			}
		}
	}
	return got
}

func named[N int64 | float64](name string, p metricdata.DataPoint[N]) string {
	for _, a := range p.Attributes.ToSlice() {
		name += " " + a.Value.AsString()
	}
	return name
}

// flaky fails every other request, and breaks every body and listing once after some of it.
type flaky struct {
	objects.Bucket
	asked  atomic.Int64
	bodies atomic.Int64
}

func (b *flaky) fails(ctx context.Context) error {
	if ctx.Err() != nil {
		return fault.Wrap(fault.Canceled, ctx.Err())
	}
	if b.asked.Add(1)%2 == 1 {
		return fault.New(fault.Unavailable, "slow down")
	}
	return nil
}

func (b *flaky) Get(ctx context.Context, key, tag string) (io.ReadCloser, objects.Attributes, error) {
	if err := b.fails(ctx); err != nil {
		return nil, objects.Attributes{}, err
	}
	body, a, err := b.Bucket.Get(ctx, key, tag)
	return b.broken(body), a, err
}

func (b *flaky) GetRange(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := b.fails(ctx); err != nil {
		return nil, err
	}
	body, err := b.Bucket.GetRange(ctx, key, offset, length)
	if offset < 0 {
		return body, err
	}
	return b.broken(body), err
}

func (b *flaky) Put(ctx context.Context, key string, body io.ReadSeeker, size int64) (objects.Attributes, error) {
	if err := b.fails(ctx); err != nil {
		_, _ = body.Seek(1, io.SeekCurrent) // some of it was sent
		return objects.Attributes{}, err
	}
	return b.Bucket.Put(ctx, key, body, size)
}

func (b *flaky) Head(ctx context.Context, key string) (objects.Attributes, error) {
	if err := b.fails(ctx); err != nil {
		return objects.Attributes{}, err
	}
	return b.Bucket.Head(ctx, key)
}

func (b *flaky) Delete(ctx context.Context, keys ...string) error {
	if err := b.fails(ctx); err != nil {
		return err
	}
	return b.Bucket.Delete(ctx, keys...)
}

func (b *flaky) List(ctx context.Context, prefix, startAfter string) iter.Seq2[objects.Attributes, error] {
	return func(yield func(objects.Attributes, error) bool) {
		n := 0
		for a, err := range b.Bucket.List(ctx, prefix, startAfter) {
			if n++; n == 3 && err == nil {
				yield(objects.Attributes{}, fault.New(fault.Unavailable, "connection reset"))
				return
			}
			if !yield(a, err) {
				return
			}
		}
	}
}

// broken makes every other body break after some bytes.
func (b *flaky) broken(body io.ReadCloser) io.ReadCloser {
	if body == nil || b.bodies.Add(1)%2 == 0 {
		return body
	}
	return &brokenBody{ReadCloser: body, left: 1000}
}

type brokenBody struct {
	io.ReadCloser
	left int
}

func (r *brokenBody) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, fault.New(fault.Unavailable, "connection reset")
	}
	n, err := r.ReadCloser.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}

// failing fails every request.
type failing struct {
	objects.Bucket
	err   error
	asked atomic.Int64
}

func (b *failing) Head(context.Context, string) (objects.Attributes, error) {
	b.asked.Add(1)
	return objects.Attributes{}, b.err
}

func (b *failing) PutIfAbsent(context.Context, string, io.ReadSeeker, int64) (objects.Attributes, error) {
	b.asked.Add(1)
	return objects.Attributes{}, b.err
}

// hanging answers nothing, or half.
type hanging struct{ objects.Bucket }

func (b *hanging) Head(ctx context.Context, _ string) (objects.Attributes, error) {
	<-ctx.Done()
	return objects.Attributes{}, ctx.Err()
}

func (b *hanging) Get(ctx context.Context, key, tag string) (io.ReadCloser, objects.Attributes, error) {
	body, a, err := b.Bucket.Get(ctx, key, tag)
	return &hangingBody{ReadCloser: body, ctx: ctx, left: 5}, a, err
}

func (b *hanging) List(ctx context.Context, _, _ string) iter.Seq2[objects.Attributes, error] {
	return func(yield func(objects.Attributes, error) bool) {
		if !yield(objects.Attributes{Key: "k"}, nil) {
			return
		}
		<-ctx.Done()
		yield(objects.Attributes{}, ctx.Err())
	}
}

type hangingBody struct {
	io.ReadCloser
	ctx  context.Context
	left int
}

func (r *hangingBody) Read(p []byte) (int, error) {
	if r.left == 0 {
		<-r.ctx.Done()
		return 0, r.ctx.Err()
	}
	n, err := r.ReadCloser.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}
