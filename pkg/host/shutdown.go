// SPDX-License-Identifier: AGPL-3.0-only

package host

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// shutdown ends the process in phases: not ready, servers drained, loops ended.
func (r *runner) shutdown() error {
	phases := r.options.Config.Shutdown
	start := time.Now()
	r.draining.Store(true)
	// From now on all services are called NOT_SERVING, whatever is published.
	r.health.Shutdown()
	r.log.Info("shutting down: not ready any more")
	if phases.Delay > 0 {
		<-time.After(phases.Delay)
	}
	r.drain(phases.Drain)
	r.log.Info("shutting down: servers drained", "after", time.Since(start))
	r.endLoops()
	r.watching.Wait()
	if !within(phases.Loops, &r.running) {
		return fault.New(fault.Timeout, "services did not end within %s; their leases will expire", phases.Loops)
	}
	r.log.Info("shutting down: loops ended", "after", time.Since(start))
	return r.gatewayConn.Close()
}

// drain lets servers finish what they have begun. HTTP goes first: behind its gateway stands gRPC.
func (r *runner) drain(deadline time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := r.httpServer.Shutdown(ctx); err != nil {
		r.endRequests()
		r.log.Warn("HTTP requests were cut off", "error", errors.Join(err, r.httpServer.Close()))
	}
	// Connections that were taken over, websockets, are not the server's any more: their context tells them.
	r.endRequests()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		r.grpcServer.GracefulStop()
	}()
	select {
	case <-stopped:
	case <-ctx.Done():
		r.log.Warn("RPCs were cut off")
		r.grpcServer.Stop()
		<-stopped
	}
	r.servers.Wait()
}

// within waits for a group, but not longer than the deadline.
func within(deadline time.Duration, group *sync.WaitGroup) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		group.Wait()
	}()
	select {
	case <-done:
		return true
	case <-time.After(deadline):
		return false
	}
}
