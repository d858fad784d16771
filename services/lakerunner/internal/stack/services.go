// SPDX-License-Identifier: AGPL-3.0-only

package stack

import (
	"cmp"
	"context"
	"net/url"

	"github.com/lakerunner/lakerunner/pkg/chaos"
	"github.com/lakerunner/lakerunner/pkg/host"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/services/compactor"
	"github.com/lakerunner/lakerunner/services/ingestor"
	"github.com/lakerunner/lakerunner/services/janitor"
	"github.com/lakerunner/lakerunner/services/notifier"
	queryfrontend "github.com/lakerunner/lakerunner/services/query-frontend"
	queryworker "github.com/lakerunner/lakerunner/services/query-worker"
	"github.com/lakerunner/lakerunner/services/rollup"
)

// webhookSource names the bucket's event sender among the webhook's sources.
const webhookSource = "s3"

// ServiceSettings are the settings of the services.
type ServiceSettings struct {
	Notifier  notifier.Config
	Ingestor  ingestor.Config
	Compactor compactor.Config
	Rollup    rollup.Config
	Janitor   janitor.Config
	Frontend  queryfrontend.Config
	Worker    queryworker.Config
}

// WebhookPath is where a stack with that token takes events.
func WebhookPath(token string) string {
	return "/webhook/" + webhookSource + "?" + url.Values{"token": {token}}.Encode()
}

// build makes the services of the roles.
func (o Options) build(ctx context.Context, p *host.Process) ([]host.Service, error) {
	settings, err := o.read(p)
	if err != nil {
		return nil, err
	}
	var services []host.Service
	for _, role := range []struct {
		wanted bool
		make   func(context.Context, *host.Process, *ServiceSettings) (host.Service, error)
	}{
		{o.Roles.Notifier, o.newNotifier},
		{o.Roles.Ingestor, o.newIngestor},
		{o.Roles.Compactor, o.newCompactor},
		{o.Roles.Rollup, o.newRollup},
		{o.Roles.Janitor, o.newJanitor},
		{o.Roles.Worker, o.newWorker},
		{o.Roles.Frontend, o.newFrontend},
	} {
		if !role.wanted {
			continue
		}
		service, err := role.make(ctx, p, settings)
		if err != nil {
			return nil, err
		}
		services = append(services, service)
	}
	return services, nil
}

// read reads the services' settings as they would themselves, and completes them.
func (o Options) read(p *host.Process) (*ServiceSettings, error) {
	var s ServiceSettings
	for section, into := range map[string]any{
		"notifier": &s.Notifier, "ingestor": &s.Ingestor, "compactor": &s.Compactor, "rollup": &s.Rollup, "janitor": &s.Janitor, "query-frontend": &s.Frontend,
		"query-worker": &s.Worker,
	} {
		if err := p.Section(section, into); err != nil {
			return nil, err
		}
	}
	s.Worker.Dir = cmp.Or(s.Worker.Dir, o.workerDir())
	s.Ingestor.ScratchDir = cmp.Or(s.Ingestor.ScratchDir, o.scratchDir())
	s.Compactor.ScratchDir = cmp.Or(s.Compactor.ScratchDir, o.scratchDir())
	s.Rollup.ScratchDir = cmp.Or(s.Rollup.ScratchDir, o.scratchDir())
	s.Janitor.ScratchDir = cmp.Or(s.Janitor.ScratchDir, o.scratchDir())
	if o.WebhookToken != "" {
		s.Notifier.Webhook.Tokens = append(s.Notifier.Webhook.Tokens, webhookSource+"="+o.WebhookToken)
	}
	o.Tune(&s)
	return &s, nil
}

// index is the process's index, with the fault points of one service.
func (o Options) index(p *host.Process, service string) (*index.Index, error) {
	idx, err := p.Index()
	if err != nil {
		return nil, err
	}
	return chaos.Index(idx, service, o.Faults), nil
}

func (o Options) newNotifier(_ context.Context, p *host.Process, s *ServiceSettings) (host.Service, error) {
	idx, err := o.index(p, "notifier")
	if err != nil {
		return nil, err
	}
	return notifier.New(s.Notifier, notifier.Deps{Index: idx, Config: p.Source, Objects: chaos.Store(p.Objects(), "notifier", o.Faults), Log: p.Log, Meter: p.Meter})
}

func (o Options) newIngestor(_ context.Context, p *host.Process, s *ServiceSettings) (host.Service, error) {
	idx, err := o.index(p, "ingestor")
	if err != nil {
		return nil, err
	}
	return ingestor.New(s.Ingestor, ingestor.Deps{
		Index: idx, Config: p.Source, Objects: chaos.Store(p.Objects(), "ingestor", o.Faults), Log: p.Log, Meter: p.Meter, Checkpoint: o.Checkpoint,
	})
}

func (o Options) newCompactor(_ context.Context, p *host.Process, s *ServiceSettings) (host.Service, error) {
	idx, err := o.index(p, "compactor")
	if err != nil {
		return nil, err
	}
	return compactor.New(s.Compactor, compactor.Deps{
		Index: idx, Config: p.Source, Objects: chaos.Store(p.Objects(), "compactor", o.Faults), Log: p.Log, Meter: p.Meter, Checkpoint: o.Checkpoint,
	})
}

func (o Options) newRollup(_ context.Context, p *host.Process, s *ServiceSettings) (host.Service, error) {
	idx, err := o.index(p, "rollup")
	if err != nil {
		return nil, err
	}
	return rollup.New(s.Rollup, rollup.Deps{
		Index: idx, Config: p.Source, Objects: chaos.Store(p.Objects(), "rollup", o.Faults), Log: p.Log, Meter: p.Meter, Checkpoint: o.Checkpoint,
	})
}

// newJanitor makes a janitor that tells the notifier of this process, if there is one, of objects whose event was lost.
func (o Options) newJanitor(_ context.Context, p *host.Process, s *ServiceSettings) (host.Service, error) {
	idx, err := o.index(p, "janitor")
	if err != nil {
		return nil, err
	}
	deps := janitor.Deps{
		Index: idx, Config: p.Source, Objects: chaos.Store(p.Objects(), "janitor", o.Faults), Dial: p.Dial, Log: p.Log, Meter: p.Meter, Checkpoint: o.Checkpoint,
	}
	if o.Roles.Notifier {
		conn, err := p.Dial("")
		if err != nil {
			return nil, err
		}
		deps.Notifier = chaos.Conn(conn, "janitor", o.Faults)
	}
	return janitor.New(s.Janitor, deps)
}

func (o Options) newWorker(ctx context.Context, p *host.Process, s *ServiceSettings) (host.Service, error) {
	return queryworker.New(ctx, s.Worker, queryworker.Deps{Objects: chaos.Store(p.Objects(), "query-worker", o.Faults), Log: p.Log, Meter: p.Meter})
}

// newFrontend makes a frontend that asks the worker of this process, if there is one, and those that are named.
func (o Options) newFrontend(_ context.Context, p *host.Process, s *ServiceSettings) (host.Service, error) {
	idx, err := o.index(p, "query-frontend")
	if err != nil {
		return nil, err
	}
	s.Frontend.Workers = append(s.Frontend.Workers, o.Workers...)
	deps := queryfrontend.Deps{Index: idx, Config: p.Source, Dial: p.Dial, ConfigDB: p.Source, Log: p.Log, Meter: p.Meter}
	if o.Roles.Worker {
		conn, err := p.Dial("")
		if err != nil {
			return nil, err
		}
		deps.Workers = []queryfrontend.Worker{{Name: "in process", Conn: chaos.Conn(conn, "query-frontend", o.Faults)}}
	}
	return queryfrontend.New(s.Frontend, deps)
}
