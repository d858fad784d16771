// SPDX-License-Identifier: AGPL-3.0-only

// Package s3test gives tests a bucket each on one real S3 server, since a process can run only one (see package s3). The server
// starts with the first test that asks and stops when none of them runs any more.
//
// While it runs the working directory is the server's: a test that reads testdata by a relative path does so before it calls New.
package s3test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/local/s3"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

const stopPatience = 10 * time.Second

// Bucket is an empty bucket on the shared server.
type Bucket struct {
	objects.Bucket
	// Location opens the bucket again, as a storage profile does.
	Location objects.Location
	// Server is the shared server; tests must not stop it.
	Server *s3.Server
}

// OnEvent sends the bucket's events to f until the test ends; an error asks for the event again.
func (b *Bucket) OnEvent(t testing.TB, f func(ctx context.Context, event []byte) error) {
	t.Helper()
	name := b.Name()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	shared.listeners[name] = f
	t.Cleanup(func() {
		shared.mu.Lock()
		defer shared.mu.Unlock()
		delete(shared.listeners, name)
	})
}

// New makes an empty bucket for this test.
func New(t testing.TB) *Bucket {
	t.Helper()
	server, number := shared.acquire(t)
	l := objects.Location{
		Name:      fmt.Sprintf("test-%04d", number),
		Endpoint:  server.Endpoint(),
		Region:    server.Region(),
		AccessKey: server.AccessKey(),
		SecretKey: server.SecretKey(),
		PathStyle: true,
	}
	if err := server.CreateBucket(t.Context(), l.Name); err != nil {
		t.Fatal(err)
	}
	b, err := objects.Open(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	return &Bucket{Bucket: b, Location: l, Server: server}
}

// shared is the process's one server: a process cannot have two.
var shared = &share{listeners: map[string]func(context.Context, []byte) error{}}

type share struct {
	life    sync.Mutex // guards the server's start and stop
	server  *s3.Server
	dir     string
	users   int
	buckets int

	mu        sync.Mutex // guards listeners
	listeners map[string]func(context.Context, []byte) error
}

func (s *share) acquire(t testing.TB) (*s3.Server, int) {
	t.Helper()
	s.life.Lock()
	defer s.life.Unlock()
	if s.server == nil {
		s.start(t)
	}
	s.users++
	s.buckets++
	t.Cleanup(func() { s.release(t) })
	return s.server, s.buckets
}

func (s *share) start(t testing.TB) {
	t.Helper()
	dir, err := os.MkdirTemp("", "lakerunner-s3test-")
	if err != nil {
		t.Fatal(err)
	}
	s.server, err = s3.Start(context.Background(), s3.Options{Dir: dir, OnEvent: s.dispatch})
	if err != nil {
		t.Fatal(err)
	}
	s.dir = dir
}

func (s *share) release(t testing.TB) {
	t.Helper()
	s.life.Lock()
	defer s.life.Unlock()
	s.users--
	if s.users > 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	if err := s.server.Stop(ctx); err != nil {
		t.Error(err)
	}
	s.server = nil
	if err := os.RemoveAll(s.dir); err != nil {
		t.Error(err)
	}
}

// dispatch hands an event to the test that owns its bucket.
func (s *share) dispatch(ctx context.Context, event []byte) error {
	var e struct {
		Records []struct {
			S3 struct{ Bucket struct{ Name string } }
		}
	}
	if json.Unmarshal(event, &e) != nil || len(e.Records) == 0 {
		return nil //nolint:nilerr // the gateway's test event
	}
	s.mu.Lock()
	f := s.listeners[e.Records[0].S3.Bucket.Name]
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(ctx, event)
}
