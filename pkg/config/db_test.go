// SPDX-License-Identifier: AGPL-3.0-only

package config_test

import (
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// database is a configdb in the same database as an lrdb, as small installations have it.
func database(t *testing.T) string {
	t.Helper()
	url := indextest.URL(t)
	if err := config.MigrateDB(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	return url
}

const wanted = `
organizations:
  - {id: acme, name: Acme, limits: {query_timeout: 30s}}
  - id: globex
storage_profiles:
  - name: main
    bucket: lake
    organization: acme
    access_key: AK
    secret_key: hush
limits: {max_query_bytes: 1GiB}
`

func TestApply(t *testing.T) {
	t.Parallel()
	apply := func(t *testing.T, live *config.Live, document string, dryRun bool) []string {
		t.Helper()
		changes, err := live.Apply(t.Context(), document, dryRun)
		if err != nil {
			t.Fatal(err)
		}
		return changes
	}
	all := []string{"add organization acme", "add organization globex", "add storage profile main", "add settings"}

	t.Run("makes configdb equal to the document, and says what it did", func(t *testing.T) {
		t.Parallel()
		live := open(t, config.Options{ConfigDBURL: database(t)})
		if diff := cmp.Diff(all, apply(t, live, wanted, false)); diff != "" {
			t.Error(diff)
		}
		acme, _ := live.Current().Organization("acme")
		if acme.Name != "Acme" || acme.Limits.QueryTimeout != 30*time.Second || acme.Limits.MaxQueryBytes != 1<<30 {
			t.Errorf("got %+v", acme)
		}
		if p, _ := live.Current().Profile("lake"); p.Location.SecretKey != "hush" {
			t.Errorf("got %+v", p.Location)
		}
		if changes := apply(t, live, wanted, false); len(changes) != 0 {
			t.Errorf("again: %v", changes)
		}
		next := strings.Replace(strings.Replace(wanted, "  - id: globex\n", "", 1), "bucket: lake", "bucket: lake\n    region: eu", 1)
		if diff := cmp.Diff([]string{"remove organization globex", "change storage profile main: region"}, apply(t, live, next, false)); diff != "" {
			t.Error(diff)
		}
		if has(live, "globex") {
			t.Error("globex is still there")
		}
	})
	t.Run("keeps lists that are written and empty apart from those that are left out", func(t *testing.T) {
		t.Parallel()
		live := open(t, config.Options{ConfigDBURL: database(t)})
		apply(t, live, `
retention: [{signal: logs, keep: 1d}]
organizations: [{id: a, retention: [], rollups: [], metrics: {utf8_names: true, identifying_attributes: []}}, {id: b}]
`, false)
		a, _ := live.Current().Organization("a")
		b, _ := live.Current().Organization("b")
		if len(a.Retention) != 0 || len(a.Rollups) != 0 || len(a.Metrics.IdentifyingAttributes) != 0 || !a.Metrics.UTF8Names {
			t.Errorf("a: got %+v", a)
		}
		if len(b.Retention) != 1 || len(b.Rollups) == 0 || len(b.Metrics.IdentifyingAttributes) == 0 || b.Metrics.UTF8Names {
			t.Errorf("b: got %+v", b)
		}
	})
	t.Run("changes nothing in a dry run", func(t *testing.T) {
		t.Parallel()
		live := open(t, config.Options{ConfigDBURL: database(t)})
		if diff := cmp.Diff(all, apply(t, live, wanted, true)); diff != "" {
			t.Error(diff)
		}
		if has(live, "acme") {
			t.Error("acme is there")
		}
	})
	t.Run("changes nothing when the document is wrong, by itself or with what is there", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "c.yaml")
		write(t, file, "storage_profiles: [{name: a, bucket: b, organization: house}]\n")
		live := open(t, config.Options{Files: []string{file}, ConfigDBURL: database(t)})
		for document, want := range map[string]string{
			"organizations: [{id: A}]":                                                        `document:1: organization "A": want a-z, 0-9, '-' and '_', beginning with a letter or digit`,
			"organizations: [{id: acme}]":                                                     file + `:1: storage profile "a" names organization "house", which is not declared; want one of acme`,
			"api_keys: [{id: a, scopes: [admin], secret_env: X}]":                             "document:1: API keys are no part of an applied document; create them one by one",
			"storage_profiles: [{name: n, bucket: n, access_key: k, secret_key: <redacted>}]": `document:1: storage profile "n" has no secret key in force that <redacted> could stand for; write the key`,
		} {
			_, err := live.Apply(t.Context(), document, false)
			if !errors.Is(err, fault.Invalid) || err.Error() != want {
				t.Errorf("want %s, got %v", want, err)
			}
		}
		if len(live.Current().Organizations()) != 0 {
			t.Error("something changed")
		}
	})
	t.Run("reaches other processes within seconds", func(t *testing.T) {
		t.Parallel()
		url := database(t)
		one, other := open(t, config.Options{ConfigDBURL: url}), open(t, config.Options{ConfigDBURL: url, Poll: 5 * time.Millisecond})
		apply(t, one, wanted, false)
		eventually(t, "the change", func() bool { return has(other, "acme") })
	})
	t.Run("is stronger than files", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "c.yaml")
		write(t, file, "organizations: [{id: acme, name: file}, {id: of-file}]\nlimits: {max_streams: 9}\n")
		live := open(t, config.Options{Files: []string{file}, ConfigDBURL: database(t)})
		apply(t, live, wanted, false)
		acme, _ := live.Current().Organization("acme")
		if acme.Name != "Acme" || acme.Limits.MaxStreams != 9 || !has(live, "of-file") {
			t.Errorf("got %+v", acme)
		}
	})
	t.Run("one at a time: of two at once none is mixed", func(t *testing.T) {
		t.Parallel()
		live := open(t, config.Options{ConfigDBURL: database(t)})
		var both sync.WaitGroup
		for _, document := range []string{"organizations: [{id: a}, {id: b}]", "organizations: [{id: c}, {id: d}]"} {
			both.Go(func() {
				if _, err := live.Apply(t.Context(), document, false); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		if got := live.Current().Organizations(); len(got) != 2 || (got[0].ID == "a") != (got[1].ID == "b") {
			t.Errorf("got %v", got)
		}
	})
}

func TestDocument(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "c.yaml")
	write(t, file, "organizations: [{id: of-file}]\n")
	live := open(t, config.Options{Files: []string{file}, ConfigDBURL: database(t), Environ: []string{"S3_BUCKET=env"}})
	if _, err := live.Apply(t.Context(), wanted, false); err != nil {
		t.Fatal(err)
	}
	document, err := live.Document()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("shows all layers and where they are from, and no secret", func(t *testing.T) {
		for _, part := range []string{
			"# from " + file + "\n  - id: of-file", "# from configdb\n  - id: acme", "# from the environment\n  - name: environment", "secret_key: <redacted>", "max_query_bytes: 1073741824", "query_timeout: 5m0s",
		} {
			if !strings.Contains(document, part) {
				t.Errorf("%q is missing in\n%s", part, document)
			}
		}
		if strings.Contains(document, "hush") {
			t.Error("it shows a secret")
		}
	})
	t.Run("can be applied, and keeps the secrets", func(t *testing.T) {
		if _, err := live.Apply(t.Context(), document, false); err != nil {
			t.Fatal(err)
		}
		if p, _ := live.Current().Profile("lake"); p.Location.SecretKey != "hush" {
			t.Errorf("got %+v", p.Location)
		}
	})
}

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	url := database(t)
	live := open(t, config.Options{ConfigDBURL: url, Environ: []string{"LAKERUNNER_ADMIN_KEY=0123456789abcdef"}})
	if _, err := live.Apply(t.Context(), wanted, false); err != nil {
		t.Fatal(err)
	}
	key, secret, err := live.CreateAPIKey(t.Context(), "acme", []config.Scope{config.ScopeQuery}, "Grafana")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("a new key opens at once", func(t *testing.T) {
		identity, ok := live.Current().Authenticate(secret)
		if !ok || identity.KeyID != key.ID || identity.Organization != "acme" || !identity.Has(config.ScopeQuery) || identity.Has(config.ScopeIngest) {
			t.Errorf("got %+v", identity)
		}
	})
	t.Run("only its hash is stored", func(t *testing.T) {
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		var row string
		if err := conn.QueryRow(t.Context(), "SELECT config_api_keys::text FROM config_api_keys").Scan(&row); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(row, secret) || !strings.Contains(row, hashOf(secret)) {
			t.Errorf("stored: %s", row)
		}
	})
	t.Run("keys are listed, those of the environment too", func(t *testing.T) {
		var ids []string
		for _, k := range live.APIKeys("") {
			ids = append(ids, k.ID)
		}
		if diff := cmp.Diff([]string{"environment", key.ID}, ids); diff != "" {
			t.Error(diff)
		}
		if got := live.APIKeys("acme"); len(got) != 1 || got[0].Description != "Grafana" || !got[0].CreatedAt.Equal(key.CreatedAt) || key.CreatedAt.IsZero() {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("an applied document leaves keys alone, but not their organization without them", func(t *testing.T) {
		if _, err := live.Apply(t.Context(), wanted+"stream_labels: [service.name]\n", false); err != nil {
			t.Fatal(err)
		}
		if _, ok := live.Current().Authenticate(secret); !ok {
			t.Error("the key is gone")
		}
		if _, err := live.Apply(t.Context(), "organizations: [{id: globex}]", false); !errors.Is(err, fault.Invalid) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a key that may not be is refused", func(t *testing.T) {
		for _, c := range []struct {
			organization string
			scopes       []config.Scope
			want         fault.Kind
		}{
			{"acme", nil, fault.Invalid},
			{"acme", []config.Scope{config.ScopeInternal}, fault.Invalid},
			{"", []config.Scope{config.ScopeQuery}, fault.Invalid},
			{"initech", []config.Scope{config.ScopeQuery}, fault.NotFound},
			{"Not valid", []config.Scope{config.ScopeQuery}, fault.Invalid},
		} {
			if _, _, err := live.CreateAPIKey(t.Context(), lake.Organization(c.organization), c.scopes, ""); !errors.Is(err, c.want) {
				t.Errorf("%+v: got %v", c, err)
			}
		}
	})
	t.Run("a deleted key opens nothing", func(t *testing.T) {
		if err := live.DeleteAPIKey(t.Context(), key.ID); err != nil {
			t.Fatal(err)
		}
		if _, ok := live.Current().Authenticate(secret); ok {
			t.Error("it still opens")
		}
		if err := live.DeleteAPIKey(t.Context(), key.ID); !errors.Is(err, fault.NotFound) {
			t.Errorf("again: got %v", err)
		}
		if err := live.DeleteAPIKey(t.Context(), "environment"); !errors.Is(err, fault.Invalid) {
			t.Errorf("got %v", err)
		}
	})
}

func TestConfigDBThatIsNotThere(t *testing.T) {
	t.Parallel()
	t.Run("without tables it says how to make them", func(t *testing.T) {
		t.Parallel()
		_, err := config.Open(t.Context(), config.Options{ConfigDBURL: indextest.URL(t)})
		if !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "run `lakerunner migrate`") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("without a server it says what to check", func(t *testing.T) {
		t.Parallel()
		_, err := config.Open(t.Context(), config.Options{ConfigDBURL: "postgres://u:p@127.0.0.1:1/x?connect_timeout=2"})
		if !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "check CONFIGDB_URL") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a URL that is none is invalid, and its password is not shown", func(t *testing.T) {
		t.Parallel()
		_, err := config.Open(t.Context(), config.Options{ConfigDBURL: "postgres://u:hush@h:port/x"})
		if !errors.Is(err, fault.Invalid) || strings.Contains(err.Error(), "hush") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no configdb at all cannot be changed", func(t *testing.T) {
		t.Parallel()
		live := open(t, config.Options{})
		if _, err := live.Apply(t.Context(), "", false); !errors.Is(err, fault.Unsupported) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("migrating again, or at once, is no matter", func(t *testing.T) {
		t.Parallel()
		url := indextest.URL(t)
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() {
				if err := config.MigrateDB(t.Context(), url); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		if err := config.MigrateDB(t.Context(), url); err != nil {
			t.Error(err)
		}
	})
}
