// SPDX-License-Identifier: AGPL-3.0-only

// Command ingestor runs the ingestor alone.
package main

import (
	"context"
	"os"

	"github.com/lakerunner/lakerunner/pkg/host"
	"github.com/lakerunner/lakerunner/services/ingestor"
)

func main() { os.Exit(host.Main("ingestor", build, host.Pipeline())) }

func build(_ context.Context, p *host.Process) ([]host.Service, error) {
	var c ingestor.Config
	if err := p.Config(&c); err != nil {
		return nil, err
	}
	index, err := p.Index()
	if err != nil {
		return nil, err
	}
	service, err := ingestor.New(c, ingestor.Deps{Index: index, Config: p.Source, Objects: p.Objects(), Log: p.Log, Meter: p.Meter})
	if err != nil {
		return nil, err
	}
	return []host.Service{service}, nil
}
