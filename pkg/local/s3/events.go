// SPDX-License-Identifier: AGPL-3.0-only

package s3

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v3"
)

const (
	eventQueue      = 10_000
	deliverers      = 8
	deliveryTries   = 8
	deliveryTimeout = 10 * time.Second
	firstPause      = 100 * time.Millisecond
	longestPause    = 5 * time.Second
)

// events tells of objects that were put or deleted, in the words of AWS. The gateway's own sender is not used: it marshals the key
// after the request's buffers have gone to the next request, so events of a busy server name the wrong objects; it tries each once;
// and it refuses to start, or prints the webhook's URL with its token.
type events struct {
	deliver  func(ctx context.Context, event []byte) error
	queue    chan []byte
	stopping chan struct{}
	lost     atomic.Int64
	workers  sync.WaitGroup
	ctx      context.Context //nolint:containedctx // the life of the workers
	cancel   context.CancelFunc
	sequence atomic.Int64
}

func startEvents(ctx context.Context, deliver func(context.Context, []byte) error) *events {
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	e := &events{deliver: deliver, queue: make(chan []byte, eventQueue), stopping: make(chan struct{}), ctx: run, cancel: cancel}
	for range deliverers {
		e.workers.Go(e.work)
	}
	e.send([]byte(`{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"` + now() + `","Bucket":""}`))
	return e
}

// stop delivers what is queued, as far as ctx lets it. Nothing is sent any more.
func (e *events) stop(ctx context.Context) {
	stopped := context.AfterFunc(ctx, e.cancel)
	defer stopped()
	close(e.stopping)
	e.workers.Wait()
	e.cancel()
}

// observe tells of a request that succeeded, before it is answered.
func (e *events) observe(c fiber.Ctx, path string) {
	o, ok := changed(c, path)
	if !ok {
		return
	}
	o.sequencer = fmt.Sprintf("%016X", e.sequence.Add(1))
	event, err := json.Marshal(o.event())
	if err != nil {
		e.lost.Add(1)
		return
	}
	e.send(event)
}

func (e *events) send(event []byte) {
	select {
	case e.queue <- event:
	default:
		e.lost.Add(1)
	}
}

func (e *events) work() {
	for {
		select {
		case event := <-e.queue:
			e.deliverSurely(event)
		case <-e.stopping:
			e.drain()
			return
		}
	}
}

func (e *events) drain() {
	for {
		select {
		case event := <-e.queue:
			e.deliverSurely(event)
		default:
			return
		}
	}
}

// deliverSurely tries several times, and counts an event that none of them delivered.
func (e *events) deliverSurely(event []byte) {
	pause := firstPause
	for range deliveryTries {
		ctx, cancel := context.WithTimeout(e.ctx, deliveryTimeout)
		err := e.deliver(ctx, event)
		cancel()
		if err == nil {
			return
		}
		select {
		case <-e.ctx.Done():
			e.lost.Add(1)
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
	e.lost.Add(1)
}

// change is an object that was put or deleted.
type change struct {
	name      string
	bucket    string
	key       string
	size      *int64
	tag       string
	sequencer string
}

// changed reads a finished request. Strings are copied: the buffers are used again. Size and tag stay away where the answer's
// headers do not tell them: of copies and of uploads in parts.
func changed(c fiber.Ctx, path string) (change, bool) {
	if status := c.Response().StatusCode(); status != http.StatusOK && status != http.StatusNoContent {
		return change{}, false
	}
	path, err := url.PathUnescape(path)
	if err != nil {
		return change{}, false
	}
	var o change
	o.bucket, o.key, _ = strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if o.bucket == "" || o.key == "" {
		return change{}, false
	}
	o.name = eventName(c)
	if o.name == "ObjectCreated:Put" {
		o.size, o.tag = sizeOf(c), strings.Trim(string(c.Response().Header.Peek(fiber.HeaderETag)), `"`)
	}
	return o, o.name != ""
}

// eventName is "" for requests that change no object: those of its tags, its locks, or of one part.
func eventName(c fiber.Ctx) string {
	query := c.Request().URI().QueryArgs()
	plain := query.Len() == 0 || query.Len() == 1 && query.Has("x-id")
	switch c.Method() {
	case fiber.MethodPut:
		copied := len(c.Request().Header.Peek("X-Amz-Copy-Source")) > 0
		switch {
		case plain && copied:
			return "ObjectCreated:Copy"
		case plain:
			return "ObjectCreated:Put"
		}
	case fiber.MethodPost:
		if query.Has("uploadId") {
			return "ObjectCreated:CompleteMultipartUpload"
		}
	case fiber.MethodDelete:
		if plain {
			return "ObjectRemoved:Delete"
		}
	}
	return ""
}

// sizeOf is the size of the body, without the frames of a chunked signature.
func sizeOf(c fiber.Ctx) *int64 {
	text := string(c.Request().Header.Peek("X-Amz-Decoded-Content-Length"))
	if text == "" {
		text = string(c.Request().Header.Peek(fiber.HeaderContentLength))
	}
	size, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil
	}
	return &size
}

// event is AWS's notification: its key is form-urlencoded, its name has no prefix.
func (o change) event() any {
	type object struct {
		Key       string `json:"key"`
		Size      *int64 `json:"size,omitempty"`
		ETag      string `json:"eTag,omitempty"`
		Sequencer string `json:"sequencer"`
	}
	type bucket struct {
		Name string `json:"name"`
		ARN  string `json:"arn"`
	}
	type s3 struct {
		Version string `json:"s3SchemaVersion"`
		Bucket  bucket `json:"bucket"`
		Object  object `json:"object"`
	}
	type record struct {
		Version string `json:"eventVersion"`
		Source  string `json:"eventSource"`
		Time    string `json:"eventTime"`
		Name    string `json:"eventName"`
		S3      s3     `json:"s3"`
	}
	return struct{ Records []record }{[]record{{
		Version: "2.1",
		Source:  "aws:s3",
		Time:    now(),
		Name:    o.name,
		S3: s3{
			Version: "1.0",
			Bucket:  bucket{Name: o.bucket, ARN: "arn:aws:s3:::" + o.bucket},
			Object:  object{Key: strings.ReplaceAll(url.QueryEscape(o.key), "%2F", "/"), Size: o.size, ETag: o.tag, Sequencer: o.sequencer},
		},
	}}}
}

func now() string { return time.Now().UTC().Format("2006-01-02T15:04:05.000Z") }

// post returns the delivery to a webhook. An answer of 4xx is final: asking again would not change it.
func post(webhook string) func(context.Context, []byte) error {
	client := &http.Client{}
	return func(ctx context.Context, event []byte) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, webhook, bytes.NewReader(event))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/json; charset=utf-8")
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		if response.StatusCode >= http.StatusInternalServerError || response.StatusCode == http.StatusTooManyRequests {
			return fmt.Errorf("webhook answered %s", response.Status)
		}
		return nil
	}
}
