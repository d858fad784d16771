// SPDX-License-Identifier: AGPL-3.0-only

package host

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// readyTimeout bounds the question whether a service is ready.
const readyTimeout = 2 * time.Second

// readiness is what /readyz answers.
type readiness struct {
	Ready bool `json:"ready"`
	// Services are "ready", or why not, by name.
	Services map[string]string `json:"services"`
}

func (r *runner) readiness(ctx context.Context) readiness {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	out := readiness{Ready: true, Services: map[string]string{}}
	for _, service := range r.services {
		out.Services[service.Name()] = "ready"
		if err := service.Ready(ctx); err != nil {
			out.Ready = false
			out.Services[service.Name()] = err.Error()
		}
	}
	if r.draining.Load() {
		out.Ready = false
		out.Services["process"] = "shutting down"
	}
	return out
}

// watchReadiness keeps the gRPC health service true, often until all are ready for the first time.
func (r *runner) watchReadiness() {
	interval, announced := 50*time.Millisecond, false
	for {
		state := r.readiness(r.loops)
		r.publish(state)
		if state.Ready && !announced {
			announced, interval = true, 2*time.Second
			r.log.Info("ready")
			if r.options.OnReady != nil {
				r.options.OnReady(r.addr())
			}
		}
		select {
		case <-r.loops.Done():
			return
		case <-time.After(interval):
		}
	}
}

func (r *runner) publish(state readiness) {
	r.health.SetServingStatus("", serving(state.Ready))
	for _, service := range r.services {
		r.health.SetServingStatus(service.Name(), serving(state.Services[service.Name()] == "ready"))
	}
}

func serving(ready bool) healthpb.HealthCheckResponse_ServingStatus {
	if ready {
		return healthpb.HealthCheckResponse_SERVING
	}
	return healthpb.HealthCheckResponse_NOT_SERVING
}

func (r *runner) serveReady(w http.ResponseWriter, req *http.Request) {
	state := r.readiness(req.Context())
	w.Header().Set("Content-Type", "application/json")
	if !state.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(state)
}

func serveOK(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n"))
}
