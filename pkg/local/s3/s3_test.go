// SPDX-License-Identifier: AGPL-3.0-only

package s3_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/local/s3"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// The tests follow each other, since a process has one server.

func TestServerGoesOnWithItsDirectory(t *testing.T) {
	before, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, want := range []string{"", "first", "second"} {
		s := start(t, s3.Options{Dir: dir})
		b := bucket(t, s)
		if got := content(t, b); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		next := map[string]string{"": "first", "first": "second", "second": "third"}[want]
		if _, err := b.Put(t.Context(), "k", strings.NewReader(next), int64(len(next))); err != nil {
			t.Fatal(err)
		}
		if err := s.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	after, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the working directory: %s", diff)
	}
}

func TestOnlyOneServerRuns(t *testing.T) {
	s := start(t, s3.Options{Dir: t.TempDir()})
	if _, err := s3.Start(t.Context(), s3.Options{Dir: t.TempDir()}); err == nil {
		t.Error("a second one started")
	}
	b := bucket(t, s)
	if _, err := b.Put(t.Context(), "k", strings.NewReader("x"), 1); err != nil {
		t.Errorf("the first one was disturbed: %v", err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := start(t, s3.Options{Dir: t.TempDir()}).Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestOnlyLoopback(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", ":9000", "192.0.2.1:9000", "localhost:9000", "127.0.0.1"} {
		if s, err := s3.Start(t.Context(), s3.Options{Dir: t.TempDir(), Listen: listen}); err == nil {
			t.Errorf("%s: started at %s", listen, s.Endpoint())
		}
	}
}

func TestEventsReachTheWebhook(t *testing.T) {
	events := make(chan event, 100)
	var refused atomic.Int32
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("token") != "secret" {
			t.Errorf("asked for %s", r.URL)
		}
		if refused.Add(1) <= 2 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		events <- eventOf(t, body)
	}))
	defer hook.Close()
	s := start(t, s3.Options{Dir: t.TempDir(), WebhookURL: hook.URL + "/webhook/s3?token=secret"})
	b := bucket(t, s)
	for _, key := range []string{"a b+c%.json", "day=1/ü"} {
		if _, err := b.Put(t.Context(), key, strings.NewReader("content"), 7); err != nil {
			t.Fatal(err)
		}
	}
	const big = 65 << 20 // sent in parts
	if _, err := b.Put(t.Context(), "big", bytes.NewReader(make([]byte, big)), big); err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(t.Context(), "day=1/ü"); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(events)
	got := map[string]int{}
	for e := range events {
		got[e.name] += e.size
	}
	want := map[string]int{
		"test": 0,
		"ObjectCreated:Put bucket a+b%2Bc%25.json":         7,
		"ObjectCreated:Put bucket day%3D1/%C3%BC":          7,
		"ObjectCreated:CompleteMultipartUpload bucket big": 0,
		"ObjectRemoved:Delete bucket day%3D1/%C3%BC":       0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if s.LostEvents() != 0 {
		t.Errorf("%d events lost", s.LostEvents())
	}
}

func TestStopDoesNotWaitForever(t *testing.T) {
	s := start(t, s3.Options{Dir: t.TempDir(), OnEvent: func(context.Context, []byte) error { return errors.New("never") }})
	b := bucket(t, s)
	if _, err := b.Put(t.Context(), "k", strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	begin := time.Now()
	if err := s.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	if s.LostEvents() == 0 {
		t.Error("the events that nobody took are not counted")
	}
}

func start(t *testing.T, o s3.Options) *s3.Server {
	t.Helper()
	s, err := s3.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func bucket(t *testing.T, s *s3.Server) objects.Bucket {
	t.Helper()
	for range 2 { // the second time it exists
		if err := s.CreateBucket(t.Context(), "bucket"); err != nil {
			t.Fatal(err)
		}
	}
	b, err := objects.Open(t.Context(), objects.Location{Name: "bucket", Endpoint: s.Endpoint(), AccessKey: s.AccessKey(), SecretKey: s.SecretKey()})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func content(t *testing.T, b objects.Bucket) string {
	t.Helper()
	for range b.List(t.Context(), "k", "") {
		body, _, err := b.Get(t.Context(), "k", "")
		if err != nil {
			t.Fatal(err)
		}
		all, err := io.ReadAll(body)
		if err = errors.Join(err, body.Close()); err != nil {
			t.Fatal(err)
		}
		return string(all)
	}
	return ""
}

// event is "test", or name, bucket and key of an event as they were sent, and the size.
type event struct {
	name string
	size int
}

func eventOf(t *testing.T, body []byte) event {
	t.Helper()
	var e struct {
		Event   string
		Records []struct {
			EventName string
			S3        struct {
				Bucket struct{ Name string }
				Object struct {
					Key  string
					Size int
					ETag string
				}
			}
		}
	}
	if err := json.Unmarshal(body, &e); err != nil {
		t.Errorf("%s: %v", body, err)
	}
	if len(e.Records) == 0 {
		return event{name: "test"}
	}
	r := e.Records[0]
	if r.EventName == "ObjectCreated:Put" && r.S3.Object.ETag != "9a0364b9e99bb480dd25e1f0284c8555" {
		t.Errorf("tag %q", r.S3.Object.ETag)
	}
	return event{name: r.EventName + " " + r.S3.Bucket.Name + " " + r.S3.Object.Key, size: r.S3.Object.Size}
}
