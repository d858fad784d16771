// SPDX-License-Identifier: AGPL-3.0-only

package prom_test

import (
	"testing"

	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/pkg/prom/promtest"
)

func TestPrometheusSuiteOverSeriesInMemory(t *testing.T) {
	t.Parallel()
	engine := prom.New(promtest.EngineOptions())
	promtest.Suite(t, func(testing.TB) promtest.Lake {
		m := &promtest.Memory{}
		return &promtest.Over{Source: m, Engine: engine, Add: func(series []prom.Series) error {
			m.Add(series...)
			return nil
		}}
	})
}
