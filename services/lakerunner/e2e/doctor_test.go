// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/services/lakerunner/internal/cli"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/doctor"
)

// diagnose runs the doctor and returns its results by check.
func diagnose(t *testing.T, environment map[string]string, args ...string) (code int, results map[string]doctor.Result) {
	t.Helper()
	var out, remarks bytes.Buffer
	code = cli.Run(t.Context(), cli.Environment{
		Args: append([]string{"doctor", "-o", "json"}, args...), Stdout: &out, Stderr: &remarks,
		Getenv: func(name string) string { return environment[name] }, Now: time.Now,
	})
	results = map[string]doctor.Result{}
	for line := range strings.Lines(out.String()) {
		var r doctor.Result
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		results[r.Check] = r
	}
	return code, results
}

func TestDoctor(t *testing.T) {
	t.Parallel()

	t.Run("finds nothing where all is well", func(t *testing.T) {
		t.Parallel()
		l := newLake(t, lakeOptions{})
		code, results := diagnose(t, map[string]string{
			"LAKERUNNER_ADDRESS": l.stack.GRPC, "LAKERUNNER_API_KEY": l.keys["default"], "LRDB_URL": l.database, "LAKERUNNER_DATA": t.TempDir(),
		}, "--config", l.configPath())
		for _, check := range []string{"server", "PostgreSQL", "clock of the database", "backlog", "configuration", "bucket " + l.bucket.Name(), "clock of the bucket", "events"} {
			if r, ok := results[check]; !ok || r.State != doctor.Good {
				t.Errorf("%s: %+v", check, r)
			}
		}
		if code != 0 {
			t.Errorf("exit code %d", code)
		}
		for attributes, err := range l.bucket.List(t.Context(), "", "") {
			if err != nil {
				t.Fatal(err)
			}
			t.Errorf("%s is left in the bucket", attributes.Key)
		}
	})

	t.Run("says what to do where nothing answers", func(t *testing.T) {
		t.Parallel()
		code, results := diagnose(t, map[string]string{
			"LAKERUNNER_ADDRESS": "127.0.0.1:1", "LAKERUNNER_API_KEY": "lr_x", "LRDB_URL": "postgres://nobody@127.0.0.1:1/nothing", "LAKERUNNER_DATA": t.TempDir(),
		})
		for _, check := range []string{"server", "PostgreSQL"} {
			if r := results[check]; r.State != doctor.Bad || r.Remedy == "" {
				t.Errorf("%s: %+v", check, r)
			}
		}
		if r := results["configuration"]; r.State != doctor.Warning || !strings.Contains(r.Remedy, "S3_BUCKET") {
			t.Errorf("configuration: %+v", r)
		}
		if code != 1 {
			t.Errorf("exit code %d", code)
		}
	})
}
