// SPDX-License-Identifier: AGPL-3.0-only

package stack

import (
	"net/url"

	"github.com/lakerunner/lakerunner/pkg/host"
	"github.com/lakerunner/lakerunner/services/ingestor"
	"github.com/lakerunner/lakerunner/services/notifier"
	queryfrontend "github.com/lakerunner/lakerunner/services/query-frontend"
	queryworker "github.com/lakerunner/lakerunner/services/query-worker"
)

// ServiceSettings are the settings of the services.
type ServiceSettings struct {
	Notifier notifier.Config
	Ingestor ingestor.Config
	Frontend queryfrontend.Config
	Worker   queryworker.Config
}

// build makes the services of the roles.
func (o Options) build(p *host.Process) ([]host.Service, error) {
	settings, err := o.read(p)
	if err != nil {
		return nil, err
	}
	var services []host.Service
	for _, role := range []struct {
		wanted bool
		make   func(*host.Process, *ServiceSettings) (host.Service, error)
	}{
		{o.Roles.Notifier, o.notifier},
		{o.Roles.Ingestor, o.ingestor},
		{o.Roles.Worker, o.worker},
		{o.Roles.Frontend, o.frontend},
	} {
		if !role.wanted {
			continue
		}
		service, err := role.make(p, settings)
		if err != nil {
			return nil, err
		}
		services = append(services, service)
	}
	return services, nil
}
