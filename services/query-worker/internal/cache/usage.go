// SPDX-License-Identifier: AGPL-3.0-only

package cache

import (
	"sync/atomic"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// Usage counts what one scan cost the cache and the object store. Its zero value has no budget. A download that several scans wait for is
// counted for the one that began it.
type Usage struct {
	// Budget is the most bytes that may be fetched; zero: any.
	Budget int64

	reserved atomic.Int64
	bytes    atomic.Int64
	requests atomic.Int64
	hits     atomic.Int64
	misses   atomic.Int64
}

// Bytes is what was fetched from the object store.
func (u *Usage) Bytes() int64 { return u.bytes.Load() }

// Requests is how many requests that took.
func (u *Usage) Requests() int64 { return u.requests.Load() }

// Hits is how many files were there.
func (u *Usage) Hits() int64 { return u.hits.Load() }

// Misses is how many files had to be fetched, or waited for.
func (u *Usage) Misses() int64 { return u.misses.Load() }

func (u *Usage) reserve(bytes int64) error {
	total := u.reserved.Add(bytes)
	if u.Budget > 0 && total > u.Budget {
		return fault.New(fault.Exhausted, "query would read more than %d bytes from the object store", u.Budget)
	}
	return nil
}

func (u *Usage) hit()                { u.hits.Add(1) }
func (u *Usage) miss()               { u.misses.Add(1) }
func (u *Usage) request()            { u.requests.Add(1) }
func (u *Usage) fetched(bytes int64) { u.bytes.Add(bytes) }
