// SPDX-License-Identifier: AGPL-3.0-only

// Package objects is the object store: one small interface, its implementations and the wrappers around them.
//
// Open makes the implementation that a Location names: S3 (and what speaks its protocol, Google Cloud Storage's
// interoperability endpoint among it) or a directory. Neither retries, measures nor times out by itself; the wrappers do, and
// Standard puts them on in the right order:
//
//	WithRetry(WithMetrics(WithDeadline(bucket)))
//
// so that each try has its own deadline and is counted and priced as the request that it is.
//
// Invariants, which objectstest holds every implementation and every wrapper to:
//
//  1. A reader sees a whole object: the old one or the new one, never a mixture or a part.
//  2. Bytes come back as they were stored: Content-Encoding is told, never undone.
//  3. Keys are opaque strings, told apart byte by byte; what one store cannot hold (see Directory) is fault.Invalid, never renamed.
//  4. The tag that Put, Head, Get and List tell of one version of an object is the same.
//  5. Of any number of PutIfAbsent calls for one key at most one succeeds.
//  6. Every error carries a fault.Kind.
//
// It does not cache, does not compress, and does not know what the objects mean.
package objects

import (
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"time"
)

// Attributes describe a stored object.
type Attributes struct {
	Key          string
	Size         int64     // bytes
	Tag          string    // content tag: unquoted ETag
	LastModified time.Time // by the store's clock; not told by Put
	ContentType  string    // not told by List
	// ContentEncoding as stored; Get never decodes it. Not told by List.
	ContentEncoding string
	// MovedFrom is the tag that the object had before SetStorageClass wrote it anew; empty: nobody did. Told by Get and Head alone.
	MovedFrom string
}

// Bucket is one bucket of an object store. Implementations are safe for concurrent use. Errors carry fault.NotFound (no such
// object or bucket), fault.Conflict (PutIfAbsent found one, or a tag did not match), fault.Denied, fault.Invalid (a key or range
// that cannot be), fault.Unavailable (throttled or unreachable: worth a retry), fault.Canceled and fault.Timeout (of ctx).
type Bucket interface {
	// Name is the bucket's name.
	Name() string
	// Get reads a whole object. The bytes are as stored: no transport decodes Content-Encoding. tag, if not empty, must match (else fault.Conflict).
	Get(ctx context.Context, key, tag string) (io.ReadCloser, Attributes, error)
	// GetRange reads length bytes from offset, or fewer where the object ends; a negative offset counts from the end, and length
	// is then ignored; a negative length reads to the end, and zero reads nothing and asks nobody. An offset at or behind the
	// end is fault.Invalid.
	GetRange(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	// Put stores an object of a known size, atomically: readers see the old one or the new one. body is read from its current
	// position, and must be able to seek so that it can be sent again; one that is an io.ReaderAt too is sent in parallel.
	Put(ctx context.Context, key string, body io.ReadSeeker, size int64) (Attributes, error)
	// PutIfAbsent is Put that fails with fault.Conflict when the key exists.
	PutIfAbsent(ctx context.Context, key string, body io.ReadSeeker, size int64) (Attributes, error)
	// List yields the objects under prefix in the order of their keys' bytes, beginning after startAfter (exclusive; empty: from
	// the first). prefix is any beginning of a key, not only a folder. The first error ends it.
	List(ctx context.Context, prefix, startAfter string) iter.Seq2[Attributes, error]
	// Delete removes objects; those that do not exist are no error. One that cannot be removed keeps no other from it: the error is
	// then a *DeleteError that says which. In a bucket with versioning the versions stay (see Versioned).
	Delete(ctx context.Context, keys ...string) error
	// Head describes an object.
	Head(ctx context.Context, key string) (Attributes, error)
	// SetStorageClass copies an object onto itself in another storage class, with what describes it and with its tag of before as
	// Attributes.MovedFrom, if it still has that tag (else fault.Conflict). Stores without classes answer fault.Unsupported, and so does
	// S3 for an object above 5 GB.
	SetStorageClass(ctx context.Context, key, tag, class string) (Attributes, error)
	// Versioned reports whether deleted or replaced objects may live on as older versions.
	Versioned(ctx context.Context) (bool, error)
}

// DeleteError names the objects that Delete could not remove.
type DeleteError struct {
	// Failed has the cause of each, by key.
	Failed map[string]error
}

// Error says how many there are, and the cause of the first by key.
func (e *DeleteError) Error() string {
	return fmt.Sprintf("%d objects could not be deleted, the first: %v", len(e.Failed), e.Unwrap())
}

// Unwrap is the cause of the first by key.
func (e *DeleteError) Unwrap() error {
	if len(e.Failed) == 0 {
		return nil
	}
	return e.Failed[slices.Min(slices.Collect(maps.Keys(e.Failed)))]
}

// deleteFailed makes the error of the causes; nil: there is none.
func deleteFailed(causes map[string]error) error {
	if len(causes) == 0 {
		return nil
	}
	return &DeleteError{Failed: causes}
}

// Store opens buckets by the storage profile that names them.
type Store interface {
	// Bucket returns the bucket of that name; fault.NotFound when no storage profile names it.
	Bucket(ctx context.Context, name string) (Bucket, error)
}
