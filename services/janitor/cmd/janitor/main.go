// SPDX-License-Identifier: AGPL-3.0-only

// Command janitor runs the janitor alone.
package main

import (
	"context"
	"os"

	"github.com/lakerunner/lakerunner/pkg/host"
	"github.com/lakerunner/lakerunner/services/janitor"
)

func main() { os.Exit(host.Main("janitor", build, host.Pipeline())) }

func build(_ context.Context, p *host.Process) ([]host.Service, error) {
	var c janitor.Config
	if err := p.Config(&c); err != nil {
		return nil, err
	}
	index, err := p.Index()
	if err != nil {
		return nil, err
	}
	service, err := janitor.New(c, janitor.Deps{Index: index, Config: p.Source, Objects: p.Objects(), Log: p.Log, Meter: p.Meter, Dial: p.Dial})
	if err != nil {
		return nil, err
	}
	return []host.Service{service}, nil
}
