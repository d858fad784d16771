// SPDX-License-Identifier: AGPL-3.0-only

package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// wholeBytes is the size up to which an object is read ahead into memory; larger ones are streamed while they are decoded.
const wholeBytes = 8 << 20

// fetched is an object's content, or why there is none.
type fetched struct {
	content io.Reader
	close   func()
	written int64 // when the object was written, ns since 1970
	err     error
}

// fetches reads a lease's objects ahead of their decoding, in order, a few at a time.
type fetches struct {
	results []chan fetched
	slots   chan struct{}
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

func (r *run) fetchAll(ctx context.Context) *fetches {
	ctx, cancel := context.WithCancel(ctx)
	f := &fetches{results: make([]chan fetched, len(r.lease.Receipts)), slots: make(chan struct{}, r.config.Fetch+1), cancel: cancel}
	for i := range f.results {
		f.results[i] = make(chan fetched, 1)
	}
	f.done.Go(func() {
		for i := range r.lease.Receipts {
			select {
			case f.slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			f.done.Go(func() { f.results[i] <- r.fetch(ctx, &r.lease.Receipts[i]) })
		}
	})
	return f
}

// next waits for an object's content. release must follow when the object is done with.
func (f *fetches) next(ctx context.Context, i int) (fetched, error) {
	select {
	case result := <-f.results[i]:
		return result, nil
	case <-ctx.Done():
		return fetched{}, ctx.Err()
	}
}

func (f *fetches) release() { <-f.slots }

// stop ends what is still being fetched, and closes what nobody took.
func (f *fetches) stop() {
	f.cancel()
	f.done.Wait()
	for _, result := range f.results {
		select {
		case left := <-result:
			if left.close != nil {
				left.close()
			}
		default:
		}
	}
}

func (r *run) fetch(ctx context.Context, receipt *lake.Receipt) fetched {
	bucket, err := r.deps.Objects.Bucket(ctx, receipt.Object.Bucket)
	if err != nil {
		return fetched{err: bucketError(err)}
	}
	body, attributes, err := get(ctx, bucket, receipt)
	if err != nil {
		return fetched{err: fmt.Errorf("get %s: %w", receipt.Object.Key, err)}
	}
	if moved(receipt, attributes) {
		body.Close()
		return fetched{err: errMoved}
	}
	r.bytesRead.Add(max(attributes.Size, 0))
	f := fetched{content: body, close: func() { body.Close() }, written: attributes.LastModified.UnixNano()}
	if attributes.LastModified.IsZero() {
		f.written = receipt.CreatedAt.UnixNano()
	}
	if attributes.Size > wholeBytes || attributes.Size < 0 {
		f.content = &exact{r: body, left: attributes.Size}
		return f
	}
	defer body.Close()
	whole := make([]byte, attributes.Size)
	if _, err := io.ReadFull(body, whole); err != nil {
		return fetched{err: fault.Wrap(fault.Unavailable, fmt.Errorf("read %s: %w", receipt.Object.Key, err))}
	}
	f.content, f.close = bytes.NewReader(whole), func() {}
	return f
}

// get reads the version of an object that a receipt is of, which may bear another tag since it was moved to another storage class, or
// be a copy that cannot be read from its class.
func get(ctx context.Context, bucket objects.Bucket, receipt *lake.Receipt) (io.ReadCloser, objects.Attributes, error) {
	o := receipt.Object
	body, attributes, err := bucket.Get(ctx, o.Key, o.Tag)
	if !errors.Is(err, fault.Conflict) && !errors.Is(err, fault.Unsupported) {
		return body, attributes, err
	}
	head, headErr := bucket.Head(ctx, o.Key)
	switch {
	case headErr != nil:
		return nil, attributes, err
	case moved(receipt, head):
		return nil, head, errMoved
	case head.MovedFrom == o.Tag && errors.Is(err, fault.Conflict):
		return bucket.Get(ctx, o.Key, head.Tag)
	}
	return nil, attributes, err
}

// errMoved says that an object is not a new one.
var errMoved = errors.New("it is a copy of an object that was ingested before, made to move that to another storage class")

// moved reports whether an object is its own copy in another storage class. It is one only beside a receipt of before the move: what
// another installation moved is new here.
func moved(receipt *lake.Receipt, a objects.Attributes) bool {
	return a.MovedFrom != "" && a.MovedFrom != receipt.Object.Tag && a.Tag == receipt.Object.Tag && receipt.Revision > 1
}

// bucketError keeps a bucket that no profile names from looking like an object that is gone: configuration comes back.
func bucketError(err error) error {
	if fault.KindOf(err) == fault.NotFound {
		return fault.New(fault.Unavailable, "open bucket: %s", err)
	}
	return err
}

// exact reads a content of known length. One that ends early is a broken connection, not a broken object.
type exact struct {
	r    io.Reader
	left int64
}

func (e *exact) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.left -= int64(n)
	switch {
	case err == io.EOF && e.left > 0:
		return n, fault.New(fault.Unavailable, "the connection ended %d bytes before the object", e.left)
	case err != nil && err != io.EOF:
		return n, fault.Wrap(fault.Unavailable, err)
	}
	return n, err
}
