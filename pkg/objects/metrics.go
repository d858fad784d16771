// SPDX-License-Identifier: AGPL-3.0-only

package objects

import (
	"context"
	"io"
	"iter"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// WithMetrics counts what a bucket is asked for:
//
//	lakerunner.objects.requests  {kind, outcome}  requests sent; outcome is ok or the fault.Kind of the operation they belong to
//	lakerunner.objects.bytes     {direction}      bytes of bodies: in (read) and out (written)
//	lakerunner.objects.price     {kind}           US dollars by the bucket's price list
//	lakerunner.objects.duration  {kind}           seconds until an operation's answer; of a listing, without its reader's time
//
// It belongs inside WithRetry, so that each try is counted.
func WithMetrics(b Bucket, meter metric.Meter) Bucket {
	return &meteredBucket{Bucket: b, price: PricesOf(b), instruments: newInstruments(meter)}
}

type meteredBucket struct {
	Bucket
	price       Prices
	instruments instruments
}

func (b *meteredBucket) prices() Prices { return b.price }

func (b *meteredBucket) Get(ctx context.Context, key, tag string) (io.ReadCloser, Attributes, error) {
	m := b.measure(ctx, RequestGet)
	body, a, err := b.Bucket.Get(m.ctx, key, tag)
	m.end(err)
	return b.body(ctx, body), a, err
}

func (b *meteredBucket) GetRange(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	m := b.measure(ctx, RequestGet)
	body, err := b.Bucket.GetRange(m.ctx, key, offset, length)
	m.end(err)
	return b.body(ctx, body), err
}

func (b *meteredBucket) Put(ctx context.Context, key string, body io.ReadSeeker, size int64) (Attributes, error) {
	m := b.measure(ctx, RequestPut)
	a, err := b.Bucket.Put(m.ctx, key, body, size)
	m.end(err)
	b.wrote(ctx, size, err)
	return a, err
}

func (b *meteredBucket) PutIfAbsent(ctx context.Context, key string, body io.ReadSeeker, size int64) (Attributes, error) {
	m := b.measure(ctx, RequestPut)
	a, err := b.Bucket.PutIfAbsent(m.ctx, key, body, size)
	m.end(err)
	b.wrote(ctx, size, err)
	return a, err
}

func (b *meteredBucket) List(ctx context.Context, prefix, startAfter string) iter.Seq2[Attributes, error] {
	return func(yield func(Attributes, error) bool) {
		m := b.measure(ctx, RequestList)
		var failed error
		defer func() { m.end(failed) }()
		for a, err := range b.Bucket.List(m.ctx, prefix, startAfter) {
			failed = err
			handed := time.Now()
			if !yield(a, err) {
				return
			}
			m.begin = m.begin.Add(time.Since(handed))
		}
	}
}

func (b *meteredBucket) Delete(ctx context.Context, keys ...string) error {
	m := b.measure(ctx, RequestDelete)
	err := b.Bucket.Delete(m.ctx, keys...)
	m.end(err)
	return err
}

func (b *meteredBucket) Head(ctx context.Context, key string) (Attributes, error) {
	m := b.measure(ctx, RequestHead)
	a, err := b.Bucket.Head(m.ctx, key)
	m.end(err)
	return a, err
}

func (b *meteredBucket) SetStorageClass(ctx context.Context, key, tag, class string) (Attributes, error) {
	m := b.measure(ctx, RequestPut)
	a, err := b.Bucket.SetStorageClass(m.ctx, key, tag, class)
	m.end(err)
	return a, err
}

func (b *meteredBucket) Versioned(ctx context.Context) (bool, error) {
	m := b.measure(ctx, RequestHead)
	versioned, err := b.Bucket.Versioned(m.ctx)
	m.end(err)
	return versioned, err
}

func (b *meteredBucket) body(ctx context.Context, body io.ReadCloser) io.ReadCloser {
	if body == nil {
		return nil
	}
	return &countedBody{ReadCloser: body, ctx: ctx, bytes: b.instruments.bytes}
}

func (b *meteredBucket) wrote(ctx context.Context, size int64, err error) {
	if err == nil {
		b.instruments.bytes.Add(ctx, size, metric.WithAttributes(attribute.String("direction", "out")))
	}
}

type instruments struct {
	requests metric.Int64Counter
	bytes    metric.Int64Counter
	price    metric.Float64Counter
	duration metric.Float64Histogram
}

// newInstruments ignores errors: they are of invalid names, and the API then returns instruments that do nothing.
func newInstruments(meter metric.Meter) instruments {
	var i instruments
	i.requests, _ = meter.Int64Counter("lakerunner.objects.requests", metric.WithDescription("Requests sent to object stores."))
	i.bytes, _ = meter.Int64Counter("lakerunner.objects.bytes", metric.WithUnit("By"), metric.WithDescription("Bytes of objects read and written."))
	i.price, _ = meter.Float64Counter("lakerunner.objects.price", metric.WithUnit("USD"), metric.WithDescription("Price of the requests by the price list."))
	i.duration, _ = meter.Float64Histogram("lakerunner.objects.duration", metric.WithUnit("s"), metric.WithDescription("Time until an operation's answer."))
	return i
}

// measurement is one operation under way.
type measurement struct {
	ctx    context.Context //nolint:containedctx // it lives as long as the operation
	bucket *meteredBucket
	kind   Request
	tally  *Tally
	begin  time.Time
}

func (b *meteredBucket) measure(ctx context.Context, kind Request) *measurement {
	ctx, tally := WithTally(ctx)
	return &measurement{ctx: ctx, bucket: b, kind: kind, tally: tally, begin: time.Now()}
}

func (m *measurement) end(err error) {
	outcome := "ok"
	if err != nil {
		outcome = string(fault.KindOf(err))
	}
	i := m.bucket.instruments
	for _, kind := range []Request{RequestGet, RequestHead, RequestPut, RequestList, RequestDelete} {
		n := m.tally.Count(kind)
		if n == 0 {
			continue
		}
		i.requests.Add(m.ctx, n, metric.WithAttributes(attribute.String("kind", string(kind)), attribute.String("outcome", outcome)))
		i.price.Add(m.ctx, m.bucket.price.Of(kind, n), metric.WithAttributes(attribute.String("kind", string(kind))))
	}
	i.duration.Record(m.ctx, time.Since(m.begin).Seconds(), metric.WithAttributes(attribute.String("kind", string(m.kind))))
}

// countedBody counts the bytes that are read.
type countedBody struct {
	io.ReadCloser
	ctx   context.Context //nolint:containedctx // only for the counter
	bytes metric.Int64Counter
}

func (r *countedBody) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if n > 0 {
		r.bytes.Add(r.ctx, int64(n), metric.WithAttributes(attribute.String("direction", "in")))
	}
	return n, err
}
