// SPDX-License-Identifier: AGPL-3.0-only

// Command query-frontend runs a query frontend alone.
package main

import (
	"context"
	"os"

	"github.com/lakerunner/lakerunner/pkg/host"
	queryfrontend "github.com/lakerunner/lakerunner/services/query-frontend"
)

func main() { os.Exit(host.Main("query-frontend", build)) }

func build(_ context.Context, p *host.Process) ([]host.Service, error) {
	var c queryfrontend.Config
	if err := p.Config(&c); err != nil {
		return nil, err
	}
	idx, err := p.Index()
	if err != nil {
		return nil, err
	}
	frontend, err := queryfrontend.New(c, queryfrontend.Deps{
		Index: idx, Config: p.Source, Dial: p.Dial, ConfigDB: p.Source, Log: p.Log, Meter: p.Meter,
	})
	if err != nil {
		return nil, err
	}
	return []host.Service{frontend}, nil
}
