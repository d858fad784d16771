// SPDX-License-Identifier: AGPL-3.0-only

// Command notifier runs the notifier alone.
package main

import (
	"context"
	"os"

	"github.com/lakerunner/lakerunner/pkg/host"
	"github.com/lakerunner/lakerunner/services/notifier"
)

func main() {
	os.Exit(host.Main("notifier", build, host.Pipeline()))
}

func build(_ context.Context, p *host.Process) ([]host.Service, error) {
	var c notifier.Config
	if err := p.Config(&c); err != nil {
		return nil, err
	}
	index, err := p.Index()
	if err != nil {
		return nil, err
	}
	s, err := notifier.New(c, notifier.Deps{Index: index, Config: p.Source, Objects: p.Objects(), Log: p.Log, Meter: p.Meter})
	if err != nil {
		return nil, err
	}
	return []host.Service{s}, nil
}
