// SPDX-License-Identifier: AGPL-3.0-only

package workers_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/fan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/workers"
)

type connection struct{ grpc.ClientConnInterface }

func names(p *workers.Pool) []string {
	var out []string
	for _, w := range p.Workers() {
		out = append(out, w.Name)
	}
	return out
}

func TestWorkersComeAndGoWithTheirName(t *testing.T) {
	t.Parallel()
	hosts, trouble := []string{"10.0.0.2", "10.0.0.1"}, error(nil)
	var dialled []string
	pool, err := workers.New(workers.Options{
		Fixed:     []fan.Worker{{Name: "fixed"}},
		Addresses: []string{"dns:///workers:9090", "one:9091"},
		Dial: func(target string) (grpc.ClientConnInterface, error) {
			dialled = append(dialled, target)
			return connection{}, nil
		},
		Lookup: func(context.Context, string) ([]string, error) { return hosts, trouble },
	})
	if err != nil {
		t.Fatal(err)
	}
	check := func(want ...string) {
		t.Helper()
		pool.Refresh(t.Context())
		if diff := cmp.Diff(want, names(pool)); diff != "" {
			t.Error(diff)
		}
	}
	check("fixed", "10.0.0.1:9090", "10.0.0.2:9090", "one:9091")
	hosts = []string{"10.0.0.3", "10.0.0.2"}
	check("fixed", "10.0.0.2:9090", "10.0.0.3:9090", "one:9091")
	trouble = errors.New("no such host")
	check("fixed", "10.0.0.2:9090", "10.0.0.3:9090", "one:9091") // DNS is away, the workers are not
	hosts, trouble = []string{"10.0.0.1"}, nil
	check("fixed", "10.0.0.1:9090", "one:9091")
	want := []string{"passthrough:///10.0.0.1:9090", "passthrough:///10.0.0.2:9090", "passthrough:///one:9091", "passthrough:///10.0.0.3:9090"}
	if diff := cmp.Diff(want, dialled); diff != "" {
		t.Errorf("each worker is dialled once: %s", diff)
	}
}

func TestWrongAddressesAreRefused(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"worker", "dns:///worker", ""} {
		if _, err := workers.New(workers.Options{Addresses: []string{address}}); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: error %v", address, err)
		}
	}
}
