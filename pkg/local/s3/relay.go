// SPDX-License-Identifier: AGPL-3.0-only

package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	relayQueue      = 10_000
	relayWorkers    = 8
	relayBody       = 1 << 20
	deliveryTries   = 8
	deliveryTimeout = 10 * time.Second
	firstPause      = 100 * time.Millisecond
	longestPause    = 5 * time.Second
	quiet           = 100 * time.Millisecond
)

// relay stands between the gateway and the webhook. The gateway tries each event once, refuses to start when nobody listens, and
// prints the URL; the relay is always there, tries again, and keeps the webhook's token to itself.
type relay struct {
	deliver  func(ctx context.Context, event []byte) error
	listener net.Listener
	server   *http.Server
	queue    chan []byte
	stopping chan struct{}
	latest   atomic.Int64 // when the latest event came, Unix nanoseconds
	lost     atomic.Int64
	workers  sync.WaitGroup
	ctx      context.Context //nolint:containedctx // the life of the workers
	cancel   context.CancelFunc
}

func startRelay(ctx context.Context, deliver func(context.Context, []byte) error) (*relay, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", defaultListen)
	if err != nil {
		return nil, fmt.Errorf("event relay: %w", err)
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := &relay{deliver: deliver, listener: l, queue: make(chan []byte, relayQueue), stopping: make(chan struct{}), ctx: run, cancel: cancel}
	r.server = &http.Server{Handler: http.HandlerFunc(r.accept), ReadHeaderTimeout: deliveryTimeout}
	r.workers.Go(func() { _ = r.server.Serve(l) })
	for range relayWorkers {
		r.workers.Go(r.work)
	}
	return r, nil
}

func (r *relay) url() string { return "http://" + r.listener.Addr().String() + "/" }

// stop delivers what is queued, as far as ctx lets it.
func (r *relay) stop(ctx context.Context) error {
	r.settle(ctx)
	err := r.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, r.server.Close())
	}
	stopped := context.AfterFunc(ctx, r.cancel)
	defer stopped()
	close(r.stopping)
	r.workers.Wait()
	r.cancel()
	return err
}

// settle waits for the events of the last requests, which the gateway sends behind its answers.
func (r *relay) settle(ctx context.Context) {
	tick := time.NewTicker(quiet / 10)
	defer tick.Stop()
	for begin := time.Now(); time.Since(time.Unix(0, max(begin.UnixNano(), r.latest.Load()))) < quiet; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// accept queues one event. Its answers have no body, since the gateway would never close it.
func (r *relay) accept(w http.ResponseWriter, request *http.Request) {
	r.latest.Store(time.Now().UnixNano())
	event, err := io.ReadAll(http.MaxBytesReader(w, request.Body, relayBody))
	if err != nil {
		r.lost.Add(1)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	select {
	case r.queue <- event:
	default:
		r.lost.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

func (r *relay) work() {
	for {
		select {
		case event := <-r.queue:
			r.deliverSurely(event)
		case <-r.stopping:
			r.drain()
			return
		}
	}
}

func (r *relay) drain() {
	for {
		select {
		case event := <-r.queue:
			r.deliverSurely(event)
		default:
			return
		}
	}
}

// deliverSurely tries several times, and counts an event that none of them delivered.
func (r *relay) deliverSurely(event []byte) {
	pause := firstPause
	for range deliveryTries {
		ctx, cancel := context.WithTimeout(r.ctx, deliveryTimeout)
		err := r.deliver(ctx, event)
		cancel()
		if err == nil {
			return
		}
		select {
		case <-r.ctx.Done():
			r.lost.Add(1)
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
	r.lost.Add(1)
}

// post returns the delivery to a webhook. An answer of 4xx is final: asking again would not change it.
func post(url string) func(context.Context, []byte) error {
	client := &http.Client{}
	return func(ctx context.Context, event []byte) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(event))
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
