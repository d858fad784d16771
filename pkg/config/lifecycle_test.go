// SPDX-License-Identifier: AGPL-3.0-only

package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

const day = 24 * time.Hour

func TestLifecycle(t *testing.T) {
	t.Parallel()
	live := open(t, config.Options{Environ: []string{"FIELD_KEY=hush"}, Files: []string{writeLifecycle(t, `
retention: [{signal: logs, keep: 90d}]
organizations:
  - id: acme
    retention:
      - {signal: logs, selector: '{service_name="audit"}', keep: 2y}
      - {signal: metrics, resolution: 10s, keep: 1w}
      - {signal: logs, keep: 30d}
    field_key_env: FIELD_KEY
    fields:
      - {name: user.email, action: hash, after: 7d}
      - {name: resource.host.ip, action: drop}
  - id: globex
  - {id: initech, retention: []}
storage_profiles:
  - {name: one, bucket: x, organization: acme, raw: {action: move, after: 30d, class: GLACIER_IR}, row_identity: event.id}
  - {name: two, bucket: y, organization: globex}
`)}})
	s := live.Current()
	acme, _ := s.Organization("acme")

	t.Run("retention comes by signal, in its order", func(t *testing.T) {
		t.Parallel()
		want := []config.RetentionPolicy{
			{Signal: lake.SignalLogs, Selector: `{service_name="audit"}`, Keep: 730 * day},
			{Signal: lake.SignalLogs, Keep: 30 * day},
		}
		if diff := cmp.Diff(want, acme.RetentionOf(lake.SignalLogs)); diff != "" {
			t.Error(diff)
		}
		if got := acme.RetentionOf(lake.SignalSpans); len(got) != 0 {
			t.Errorf("spans: got %v", got)
		}
	})
	t.Run("an organization without retention has that of the top level, one with an empty list none", func(t *testing.T) {
		t.Parallel()
		globex, _ := s.Organization("globex")
		initech, _ := s.Organization("initech")
		if got := globex.RetentionOf(lake.SignalLogs); len(got) != 1 || got[0].Keep != 90*day || len(initech.Retention) != 0 {
			t.Errorf("got %v and %v", got, initech.Retention)
		}
	})
	t.Run("field rules have the key of the environment", func(t *testing.T) {
		t.Parallel()
		want := []config.FieldRule{
			{Name: "user.email", Signal: lake.SignalLogs, Action: config.FieldHash, After: 7 * day, Key: []byte("hush")},
			{Name: "resource.host.ip", Signal: lake.SignalLogs, Action: config.FieldDrop},
		}
		if diff := cmp.Diff(want, acme.FieldsOf(lake.SignalLogs)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("source objects are kept unless the profile says otherwise", func(t *testing.T) {
		t.Parallel()
		x, _ := s.Profile("x")
		y, _ := s.Profile("y")
		if diff := cmp.Diff(config.RawPolicy{Action: config.RawMove, After: 30 * day, Class: "GLACIER_IR"}, x.Raw); diff != "" {
			t.Error(diff)
		}
		if y.Raw.Action != config.RawKeep || x.RowIdentity != "event.id" {
			t.Errorf("got %+v and %q", y.Raw, x.RowIdentity)
		}
	})
	t.Run("what is shown can be read again, and shows no key", func(t *testing.T) {
		t.Parallel()
		document, err := live.Document()
		if err != nil {
			t.Fatal(err)
		}
		again := open(t, config.Options{Environ: []string{"FIELD_KEY=hush"}, Files: []string{writeLifecycle(t, document)}}).Current()
		other, _ := again.Organization("acme")
		if diff := cmp.Diff(acme, other); diff != "" || strings.Contains(document, "hush") {
			t.Errorf("%s\n%s", document, diff)
		}
		globex, _ := again.Organization("globex")
		if len(globex.Retention) != 1 {
			t.Errorf("got %v", globex.Retention)
		}
	})
}

func TestLifecycleThatIsWrong(t *testing.T) {
	t.Parallel()
	for document, want := range map[string]string{
		`retention: [{signal: logs}]`:                                                         "keep is 0s",
		`retention: [{keep: 1d}]`:                                                             "names no signal",
		`retention: [{signal: spans, selector: "{a=\"b\"}", keep: 1d}]`:                       "a selector is for logs only",
		`retention: [{signal: spans, resolution: 10s, keep: 1d}]`:                             "a resolution is for metrics and logs only",
		`retention: [{signal: metrics, resolution: 30s, keep: 1d}]`:                           "want raw, 10s, 1m, 5m, 20m or 1h",
		`retention: [{signal: logs, resolution: 1m, selector: "{a=\"b\"}", keep: 1d}]`:        "take resolution out",
		`retention: [{signal: logs, selector: "a=b", keep: 1d}]`:                              "want a stream selector",
		`retention: [{signal: logs, selector: "{a=b}", keep: 1d}]`:                            "want a quoted value",
		`retention: [{signal: logs, selector: "{a=~\"(\"}", keep: 1d}]`:                       "is no regular expression",
		`retention: [{signal: logs, selector: "{a=~\".*\"}", keep: 1d}]`:                      "must not match the empty value",
		`retention: [{signal: logs, selector: "{a=\"b\"} |= \"x\"", keep: 1d}]`:               "nothing behind it",
		`organizations: [{id: a, fields: [{name: x, action: hash}]}]`:                         "field_key_env",
		`organizations: [{id: a, field_key_env: NOT_SET, fields: [{name: x, action: hash}]}]`: "NOT_SET is not set",
		`organizations: [{id: a, fields: [{name: x, action: burn}]}]`:                         "want drop, hash or mask",
		`organizations: [{id: a, fields: [{name: resource.service.name, action: mask}]}]`:     "is a stream label",
		`storage_profiles: [{name: a, bucket: b, raw: {action: burn}}]`:                       "want keep, expire or move",
		`storage_profiles: [{name: a, bucket: b, raw: {action: move, after: 1d}}]`:            "needs `class:`",
		`storage_profiles: [{name: a, bucket: b, raw: {action: expire}}]`:                     "needs `after:`",
	} {
		_, err := config.Open(t.Context(), config.Options{Files: []string{writeLifecycle(t, document)}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: want %q, got %v", document, want, err)
		}
	}
}

func writeLifecycle(t *testing.T, document string) string {
	t.Helper()
	file := t.TempDir() + "/lifecycle.yaml"
	write(t, file, document)
	return file
}
