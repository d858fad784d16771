// SPDX-License-Identifier: AGPL-3.0-only

// Command rollup runs the rollup service alone.
package main

import (
	"context"
	"os"

	"github.com/lakerunner/lakerunner/pkg/host"
	"github.com/lakerunner/lakerunner/services/rollup"
)

func main() { os.Exit(host.Main("rollup", build, host.Pipeline())) }

func build(_ context.Context, p *host.Process) ([]host.Service, error) {
	var c rollup.Config
	if err := p.Config(&c); err != nil {
		return nil, err
	}
	index, err := p.Index()
	if err != nil {
		return nil, err
	}
	service, err := rollup.New(c, rollup.Deps{Index: index, Config: p.Source, Objects: p.Objects(), Log: p.Log, Meter: p.Meter})
	if err != nil {
		return nil, err
	}
	return []host.Service{service}, nil
}
