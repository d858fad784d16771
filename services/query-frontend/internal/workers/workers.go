// SPDX-License-Identifier: AGPL-3.0-only

// Package workers keeps the list of query workers that can be asked: those it was given, those at fixed addresses, and those
// that a DNS name stands for, looked up again and again so that worker pods come and go.
package workers

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/lakerunner/lakerunner/pkg/fault"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/fan"
)

const dnsScheme = "dns:///"

// Options says where workers are.
type Options struct {
	// Fixed are there always.
	Fixed []fan.Worker
	// Addresses are host:port of one worker each, or dns:///host:port, every address of which is a worker.
	Addresses []string
	// Dial connects to one worker.
	Dial func(target string) (grpc.ClientConnInterface, error)
	// Lookup resolves a host. Nil: the system's resolver.
	Lookup func(ctx context.Context, host string) ([]string, error)
	// Interval is how often names are looked up again. Zero: five seconds.
	Interval time.Duration
	Log      *slog.Logger
}

// Pool is the list. Safe for concurrent use.
type Pool struct {
	options Options
	mu      sync.Mutex
	dialled map[string]fan.Worker // by target, for as long as the pool lives: a pod's address may come back
	current []fan.Worker
	trouble string // what was last logged
}

// New checks the addresses and returns the pool. Names are looked up by Run, and once by Refresh.
func New(o Options) (*Pool, error) {
	if o.Lookup == nil {
		o.Lookup = net.DefaultResolver.LookupHost
	}
	if o.Interval <= 0 {
		o.Interval = 5 * time.Second
	}
	for _, address := range o.Addresses {
		if _, _, err := net.SplitHostPort(strings.TrimPrefix(address, dnsScheme)); err != nil {
			return nil, fault.New(fault.Invalid, "worker address %q: want host:port or dns:///host:port: %w", address, err)
		}
	}
	if len(o.Addresses) > 0 && o.Dial == nil {
		return nil, fault.New(fault.Invalid, "worker addresses are configured but nothing to dial them with")
	}
	return &Pool{options: o, dialled: map[string]fan.Worker{}, current: o.Fixed}, nil
}

// Workers returns the workers of now. The caller does not change the slice.
func (p *Pool) Workers() []fan.Worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current
}

// Run keeps the list fresh until ctx ends.
func (p *Pool) Run(ctx context.Context) error {
	p.Refresh(ctx)
	if len(p.options.Addresses) == 0 {
		<-ctx.Done()
		return nil
	}
	ticker := time.NewTicker(p.options.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			p.Refresh(ctx)
		}
	}
}

// Refresh looks names up once. A name that cannot be looked up keeps the workers it had: DNS being away does not take workers away.
func (p *Pool) Refresh(ctx context.Context) {
	if len(p.options.Addresses) == 0 {
		return
	}
	found := slices.Clone(p.options.Fixed)
	var trouble []string
	for _, address := range p.options.Addresses {
		targets, err := p.targets(ctx, address)
		if err != nil {
			trouble = append(trouble, err.Error())
			found = append(found, p.known(address)...)
			continue
		}
		for _, target := range targets {
			worker, err := p.dial(address, target)
			if err != nil {
				trouble = append(trouble, err.Error())
				continue
			}
			found = append(found, worker)
		}
	}
	p.replace(found, strings.Join(trouble, "; "))
}

func (p *Pool) targets(ctx context.Context, address string) ([]string, error) {
	name, isName := strings.CutPrefix(address, dnsScheme)
	if !isName {
		return []string{address}, nil
	}
	host, port, err := net.SplitHostPort(name)
	if err != nil {
		return nil, err
	}
	hosts, err := p.options.Lookup(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("look up query workers: %w", err)
	}
	slices.Sort(hosts)
	targets := make([]string, 0, len(hosts))
	for _, h := range slices.Compact(hosts) {
		targets = append(targets, net.JoinHostPort(h, port))
	}
	return targets, nil
}

// known returns the workers that an address last had.
func (p *Pool) known(address string) []fan.Worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.current), func(w fan.Worker) bool {
		_, dialled := p.dialled[address+" "+w.Name]
		return !dialled
	})
}

func (p *Pool) dial(address, target string) (fan.Worker, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := address + " " + target
	if worker, ok := p.dialled[key]; ok {
		return worker, nil
	}
	conn, err := p.options.Dial("passthrough:///" + target)
	if err != nil {
		return fan.Worker{}, fmt.Errorf("dial query worker %s: %w", target, err)
	}
	worker := fan.Worker{Name: target, Client: workerv1.NewWorkerServiceClient(conn)}
	p.dialled[key] = worker
	return worker, nil
}

func (p *Pool) replace(found []fan.Worker, trouble string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if before, after := names(p.current), names(found); !slices.Equal(before, after) && p.options.Log != nil {
		p.options.Log.Info("query workers changed", "workers", after)
	}
	if trouble != "" && trouble != p.trouble && p.options.Log != nil {
		p.options.Log.Warn("query workers are not all known", "cause", trouble)
	}
	p.current, p.trouble = found, trouble
}

func names(workers []fan.Worker) []string {
	out := make([]string, len(workers))
	for i, w := range workers {
		out[i] = w.Name
	}
	return out
}
