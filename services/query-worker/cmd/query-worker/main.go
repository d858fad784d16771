// SPDX-License-Identifier: AGPL-3.0-only

// Command query-worker runs a query worker alone.
package main

import (
	"context"
	"os"

	"github.com/lakerunner/lakerunner/pkg/host"
	queryworker "github.com/lakerunner/lakerunner/services/query-worker"
)

func main() {
	// DuckDB takes the larger part of the memory.
	os.Exit(host.Main("query-worker", build, host.GoMemory(0.4)))
}

func build(ctx context.Context, p *host.Process) ([]host.Service, error) {
	var c queryworker.Config
	if err := p.Config(&c); err != nil {
		return nil, err
	}
	worker, err := queryworker.New(ctx, c, queryworker.Deps{Objects: p.Objects(), Log: p.Log, Meter: p.Meter})
	if err != nil {
		return nil, err
	}
	return []host.Service{worker}, nil
}
