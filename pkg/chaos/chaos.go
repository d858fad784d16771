// SPDX-License-Identifier: AGPL-3.0-only

// Package chaos puts named fault points around the steps of a service that touch something outside of its process: statements of the
// index, requests to object stores, calls of other services. Tests have faults happen there.
//
// A point is named {service}.{what}.{step}, for example compactor.bucket.put or ingestor.index.LockLease. Around each step an Injector is
// asked twice: Before may fail, hang or end the process, and the step has then not happened; After may do the same, and the step
// has happened but nobody knows: its answer is lost.
//
// Without an injector nothing is wrapped, and nothing is paid for.
package chaos

import (
	"context"
	"io"
	"iter"
	"path"

	"google.golang.org/grpc"

	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// Injector decides what happens at a fault point. It is safe for concurrent use.
type Injector interface {
	// Before is asked before a step; an error takes the step's place.
	Before(ctx context.Context, point string) error
	// After is asked when the step has succeeded; an error takes the answer's place.
	After(ctx context.Context, point string) error
}

// Index puts fault points around the steps of a service's index: {service}.index.{name of the statement, Begin, Commit}.
func Index(x *index.Index, service string, in Injector) *index.Index {
	if in == nil {
		return x
	}
	return x.Intercepted(Around{in, service + ".index."})
}

// Around names the points of one part of a service: it puts a prefix before the names of steps.
type Around struct {
	Injector Injector
	Prefix   string // for example "ingestor.index."
}

// Before asks the injector.
func (a Around) Before(ctx context.Context, step string) error {
	return a.Injector.Before(ctx, a.Prefix+step)
}

// After asks the injector.
func (a Around) After(ctx context.Context, step string) error {
	return a.Injector.After(ctx, a.Prefix+step)
}

// do runs a step between its two questions.
func (a Around) do(ctx context.Context, step string, f func() error) error {
	if err := a.Before(ctx, step); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	return a.After(ctx, step)
}

// Store puts fault points around the requests to all buckets of a store: {service}.bucket.{get, put, list, delete, head, copy}.
func Store(s objects.Store, service string, in Injector) objects.Store {
	if in == nil {
		return s
	}
	return store{s, Around{in, service + ".bucket."}}
}

type store struct {
	objects.Store
	around Around
}

func (s store) Bucket(ctx context.Context, name string) (objects.Bucket, error) {
	b, err := s.Store.Bucket(ctx, name)
	if err != nil {
		return nil, err
	}
	return &bucket{b, s.around}, nil
}

// keyOf is where a step's context has the key that it is about.
type keyOf struct{}

// Key is the object's key that a step of a bucket is about; empty: it is about none, or about several.
func Key(ctx context.Context) string {
	key, _ := ctx.Value(keyOf{}).(string)
	return key
}

func withKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, keyOf{}, key)
}

type bucket struct {
	objects.Bucket
	around Around
}

func (b *bucket) Get(ctx context.Context, key, tag string) (body io.ReadCloser, a objects.Attributes, err error) {
	err = b.around.do(withKey(ctx, key), "get", func() error {
		body, a, err = b.Bucket.Get(ctx, key, tag)
		return err
	})
	return opened(body, err), a, err
}

func (b *bucket) GetRange(ctx context.Context, key string, offset, length int64) (body io.ReadCloser, err error) {
	err = b.around.do(withKey(ctx, key), "get", func() error {
		body, err = b.Bucket.GetRange(ctx, key, offset, length)
		return err
	})
	return opened(body, err), err
}

// opened closes a body that nobody will get.
func opened(body io.ReadCloser, err error) io.ReadCloser {
	if err == nil || body == nil {
		return body
	}
	_ = body.Close()
	return nil
}

func (b *bucket) Put(ctx context.Context, key string, body io.ReadSeeker, size int64) (a objects.Attributes, err error) {
	err = b.around.do(withKey(ctx, key), "put", func() error {
		a, err = b.Bucket.Put(ctx, key, body, size)
		return err
	})
	return a, err
}

func (b *bucket) PutIfAbsent(ctx context.Context, key string, body io.ReadSeeker, size int64) (a objects.Attributes, err error) {
	err = b.around.do(withKey(ctx, key), "put", func() error {
		a, err = b.Bucket.PutIfAbsent(ctx, key, body, size)
		return err
	})
	return a, err
}

func (b *bucket) List(ctx context.Context, prefix, startAfter string) iter.Seq2[objects.Attributes, error] {
	return func(yield func(objects.Attributes, error) bool) {
		if err := b.around.Before(ctx, "list"); err != nil {
			yield(objects.Attributes{}, err)
			return
		}
		for a, err := range b.Bucket.List(ctx, prefix, startAfter) {
			if !yield(a, err) {
				return
			}
		}
		if err := b.around.After(ctx, "list"); err != nil {
			yield(objects.Attributes{}, err)
		}
	}
}

func (b *bucket) Delete(ctx context.Context, keys ...string) error {
	return b.around.do(ctx, "delete", func() error { return b.Bucket.Delete(ctx, keys...) })
}

func (b *bucket) Head(ctx context.Context, key string) (a objects.Attributes, err error) {
	err = b.around.do(withKey(ctx, key), "head", func() error {
		a, err = b.Bucket.Head(ctx, key)
		return err
	})
	return a, err
}

func (b *bucket) SetStorageClass(ctx context.Context, key, tag, class string) (a objects.Attributes, err error) {
	err = b.around.do(withKey(ctx, key), "copy", func() error {
		a, err = b.Bucket.SetStorageClass(ctx, key, tag, class)
		return err
	})
	return a, err
}

// Conn puts fault points around the calls of another service: {service}.peer.{method}.
func Conn(c grpc.ClientConnInterface, service string, in Injector) grpc.ClientConnInterface {
	if in == nil {
		return c
	}
	return conn{c, Around{in, service + ".peer."}}
}

type conn struct {
	grpc.ClientConnInterface
	around Around
}

func (c conn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return c.around.do(ctx, path.Base(method), func() error { return c.ClientConnInterface.Invoke(ctx, method, args, reply, opts...) })
}

func (c conn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (s grpc.ClientStream, err error) {
	err = c.around.do(ctx, path.Base(method), func() error {
		s, err = c.ClientConnInterface.NewStream(ctx, desc, method, opts...)
		return err
	})
	return s, err
}
