// SPDX-License-Identifier: AGPL-3.0-only

package objects

import (
	"context"
	"sync/atomic"
)

// Request is a kind of request to an object store.
type Request string

// The kinds of request.
const (
	RequestGet    Request = "get" // ranged ones too
	RequestHead   Request = "head"
	RequestPut    Request = "put" // each part of a multipart upload too
	RequestList   Request = "list"
	RequestDelete Request = "delete"
)

// Prices are what 1,000 requests of each kind cost, in US dollars. A kind that is missing is free.
type Prices map[Request]float64

// Of returns the price of n requests in US dollars.
func (p Prices) Of(kind Request, n int64) float64 { return p[kind] * float64(n) / 1000 }

// ListPrices returns a provider's public list price: S3 Standard in us-east-1, GCS Standard in a single region. A directory is free.
func ListPrices(provider string) Prices {
	if provider == ProviderFile {
		return Prices{}
	}
	return Prices{RequestGet: 0.0004, RequestHead: 0.0004, RequestPut: 0.005, RequestList: 0.005}
}

// PricesOf returns the prices of a bucket that Open made, wrapped or not; none of another's.
func PricesOf(b Bucket) Prices {
	if p, ok := b.(interface{ prices() Prices }); ok {
		return p.prices()
	}
	return Prices{}
}

// Tally counts the requests that were really sent within a context: a big Put is several, and a List one for each page. It is safe
// for concurrent use.
type Tally struct {
	get, head, put, list, deletes atomic.Int64
	outer                         *Tally
}

// Count returns the requests of a kind.
func (t *Tally) Count(kind Request) int64 { return t.counter(kind).Load() }

// Total returns the requests of all kinds.
func (t *Tally) Total() int64 {
	return t.get.Load() + t.head.Load() + t.put.Load() + t.list.Load() + t.deletes.Load()
}

func (t *Tally) counter(kind Request) *atomic.Int64 {
	switch kind {
	case RequestGet:
		return &t.get
	case RequestHead:
		return &t.head
	case RequestPut:
		return &t.put
	case RequestList:
		return &t.list
	}
	return &t.deletes
}

type tallyKey struct{}

// WithTally returns a context whose requests are counted by the tally, and by those of the contexts around it.
func WithTally(ctx context.Context) (context.Context, *Tally) {
	outer, _ := ctx.Value(tallyKey{}).(*Tally)
	t := &Tally{outer: outer}
	return context.WithValue(ctx, tallyKey{}, t), t
}

// count is called by implementations, once for each request sent.
func count(ctx context.Context, kind Request) {
	t, _ := ctx.Value(tallyKey{}).(*Tally)
	for ; t != nil; t = t.outer {
		t.counter(kind).Add(1)
	}
}
