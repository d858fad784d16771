// SPDX-License-Identifier: AGPL-3.0-only

package mapping_test

import (
	"fmt"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/mapping"
)

// sink maps what it is given.
type sink struct {
	logs   *columns.Logs
	mapper *mapping.Mapper
}

func newSink() *sink {
	logs := columns.NewLogs()
	s := &sink{logs: logs, mapper: mapping.New(logs)}
	s.mapper.SetLabels(config.DefaultStreamLabels())
	return s
}

func (s *sink) Origin(o *columns.Origin) { s.mapper.Origin(o) }

func (s *sink) Row(r *columns.LogRow) error {
	s.mapper.Row(r, 0)
	s.logs.Append(r)
	return nil
}

func (s *sink) Reject(reason string, _ []byte) error { return fmt.Errorf("rejected: %s", reason) }
