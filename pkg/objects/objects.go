// SPDX-License-Identifier: AGPL-3.0-only

// Package objects is the object store: one small interface, its implementations (S3, a directory) and the wrappers that add
// metrics, retries and deadlines. objectstest holds the conformance suite that every implementation passes.
package objects

import (
	"context"
	"io"
	"iter"
	"time"
)

// Attributes describe a stored object.
type Attributes struct {
	Key          string
	Size         int64  // bytes
	Tag          string // content tag: unquoted ETag
	LastModified time.Time
	ContentType  string
	// ContentEncoding as stored; Get never decodes it.
	ContentEncoding string
}

// Bucket is one bucket of an object store. Implementations are safe for concurrent use. Errors carry fault.NotFound (no such
// object or bucket), fault.Conflict (PutIfAbsent found one), fault.Denied, fault.Unavailable (throttled or unreachable: worth a retry).
type Bucket interface {
	// Name is the bucket's name.
	Name() string
	// Get reads a whole object. The bytes are as stored: no transport decodes Content-Encoding. tag, if not empty, must match (else fault.Conflict).
	Get(ctx context.Context, key, tag string) (io.ReadCloser, Attributes, error)
	// GetRange reads length bytes from offset; a negative offset counts from the end (and length is then ignored).
	GetRange(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	// Put stores an object of a known size, atomically: readers see the old one or the new one. body must be able to seek so that it can be sent again.
	Put(ctx context.Context, key string, body io.ReadSeeker, size int64) (Attributes, error)
	// PutIfAbsent is Put that fails with fault.Conflict when the key exists.
	PutIfAbsent(ctx context.Context, key string, body io.ReadSeeker, size int64) (Attributes, error)
	// List yields the objects under prefix in key order, beginning after startAfter (exclusive; empty: from the first).
	List(ctx context.Context, prefix, startAfter string) iter.Seq2[Attributes, error]
	// Delete removes objects; those that do not exist are no error.
	Delete(ctx context.Context, keys ...string) error
	// Head describes an object.
	Head(ctx context.Context, key string) (Attributes, error)
}

// Store opens buckets by the storage profile that names them.
type Store interface {
	// Bucket returns the bucket of that name; fault.NotFound when no storage profile names it.
	Bucket(ctx context.Context, name string) (Bucket, error)
}
