// SPDX-License-Identifier: AGPL-3.0-only

package config_test

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

func hashOf(secret string) string {
	hash := config.Hash(secret)
	return hex.EncodeToString(hash[:])
}

func TestSnapshot(t *testing.T) {
	t.Parallel()
	s := snapshot(t, `
limits: {max_query_lines: 100, accept_past: 30d}
stream_labels: [service.name]
prices: {get: 0.001, storage: 0}
organizations:
  - {id: b, name: B, limits: {max_query_lines: 0, query_timeout: 10s}, stream_labels: [host.name], trusted_header: true}
  - {id: a}
storage_profiles:
  - {name: one, bucket: x, organization: a, stream_labels: [k8s.pod.name], on_rewrite: replace, prices: {put: 1}}
  - {name: two, bucket: y, organization: b}
`)
	t.Run("organizations come in order, with the limits of the layers", func(t *testing.T) {
		t.Parallel()
		outer := config.DefaultLimits()
		outer.MaxQueryLines, outer.AcceptPast = 100, 30*24*time.Hour
		own := outer
		own.MaxQueryLines, own.QueryTimeout = 0, 10*time.Second
		want := []*config.Organization{
			{ID: "a", Limits: outer, StreamLabels: []string{"service.name"}, Rollups: config.DefaultRollups(), Metrics: config.DefaultMetrics()},
			{
				ID: "b", Name: "B", Limits: own, StreamLabels: []string{"host.name"}, TrustedHeader: true,
				Rollups: config.DefaultRollups(), Metrics: config.DefaultMetrics(),
			},
		}
		if diff := cmp.Diff(want, s.Organizations()); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("an organization that is not declared does not exist", func(t *testing.T) {
		t.Parallel()
		if _, ok := s.Organization("c"); ok {
			t.Error("want none")
		}
	})
	t.Run("stream labels are the profile's, else the organization's", func(t *testing.T) {
		t.Parallel()
		for bucket, want := range map[string]string{"x": "k8s.pod.name", "y": "host.name"} {
			if got := s.StreamLabels(s.Resolve(bucket, "k")); !cmp.Equal(got, []string{want}) {
				t.Errorf("%s: got %v", bucket, got)
			}
		}
	})
	t.Run("prices are the profile's, else those of all, else the list's", func(t *testing.T) {
		t.Parallel()
		p, _ := s.Profile("x")
		got := p.Prices.Requests
		if got[objects.RequestPut] != 1 || got[objects.RequestGet] != 0.001 || got[objects.RequestList] != 0.005 || p.Prices.Storage != 0 {
			t.Errorf("got %+v", p.Prices)
		}
	})
	t.Run("a rewrite appends unless told to replace", func(t *testing.T) {
		t.Parallel()
		x, _ := s.Profile("x")
		y, _ := s.Profile("y")
		if x.OnRewrite != config.Replace || y.OnRewrite != config.Append {
			t.Errorf("got %s, %s", x.OnRewrite, y.OnRewrite)
		}
	})
	t.Run("without declared organizations every valid id is one, with defaults", func(t *testing.T) {
		t.Parallel()
		open := snapshot(t, "limits: {max_streams: 5}")
		got, ok := open.Organization("any")
		if !ok || got.ID != "any" || got.Limits.MaxStreams != 5 || len(got.StreamLabels) != len(config.DefaultStreamLabels()) {
			t.Errorf("got %+v", got)
		}
		if _, ok := open.Organization("Not Valid"); ok {
			t.Error("want none")
		}
	})
	t.Run("a second profile of a bucket reaches it as the first", func(t *testing.T) {
		t.Parallel()
		s := snapshot(t, `
storage_profiles:
  - {name: a, bucket: b, provider: aws, endpoint: "http://minio:9000", access_key: k, secret_key: s}
  - {name: c, bucket: b, prefix: c/, organization: o}
`)
		profiles := s.Profiles()
		if config.LocationKey(profiles[0].Location) != config.LocationKey(profiles[1].Location) {
			t.Errorf("got %+v", profiles[1].Location)
		}
		if !profiles[0].Location.PathStyle {
			t.Error("an endpoint of one's own is used in path style")
		}
	})
}

func TestAuthenticate(t *testing.T) {
	t.Parallel()
	query, admin := config.NewSecret(), config.NewSecret()
	s := snapshot(t, `
organizations: [{id: acme}, {id: open, trusted_header: true}]
api_keys:
  - {id: grafana, organization: acme, scopes: [query, ingest], sha256: `+hashOf(query)+`}
  - {id: root, scopes: [admin], sha256: `+strings.ToUpper(hashOf(admin))+`}
`)
	t.Run("a secret finds its key", func(t *testing.T) {
		t.Parallel()
		got, ok := s.Authenticate(query)
		want := config.Identity{KeyID: "grafana", Organization: "acme", Scopes: []config.Scope{config.ScopeQuery, config.ScopeIngest}}
		if diff := cmp.Diff(want, got); !ok || diff != "" {
			t.Error(diff)
		}
		if got, ok := s.Authenticate(admin); !ok || got.KeyID != "root" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("anything else finds none", func(t *testing.T) {
		t.Parallel()
		for _, secret := range []string{"", "x", query + "x", query[:len(query)-1], hashOf(query), strings.ToUpper(query)} {
			if got, ok := s.Authenticate(secret); ok || got.KeyID != "" {
				t.Errorf("%q: got %+v", secret, got)
			}
		}
	})
	t.Run("scopes open their own doors, admin those of query and ingest, nobody internal ones", func(t *testing.T) {
		t.Parallel()
		all := []config.Scope{config.ScopeQuery, config.ScopeIngest, config.ScopeAdmin, config.ScopeInternal, config.ScopeOpen, ""}
		for scopes, want := range map[string][]bool{
			"query": {true, false, false, false, true, false}, "ingest": {false, true, false, false, true, false},
			"admin": {true, true, true, false, true, false}, "internal": {false, false, false, true, true, false}, "": {false, false, false, false, true, false},
		} {
			identity := config.Identity{Scopes: []config.Scope{config.Scope(scopes)}}
			for i, scope := range all {
				if got := identity.Has(scope); got != want[i] {
					t.Errorf("%q has %q: got %t", scopes, scope, got)
				}
			}
		}
	})
	t.Run("a header is trusted only where the organization says so", func(t *testing.T) {
		t.Parallel()
		got, ok := s.Trusted("open")
		if !ok || got.Organization != "open" || got.Has(config.ScopeAdmin) || !got.Has(config.ScopeQuery) {
			t.Errorf("got %+v", got)
		}
		for _, header := range []string{"", "acme", "nobody", "open|acme", "OPEN"} {
			if _, ok := s.Trusted(header); ok {
				t.Errorf("%q is trusted", header)
			}
		}
	})
	t.Run("new secrets are long, marked and all different", func(t *testing.T) {
		t.Parallel()
		if len(query) != len("lr_")+43 || !strings.HasPrefix(query, "lr_") || query == admin {
			t.Errorf("got %s", query)
		}
	})
}

func TestWrongDocuments(t *testing.T) {
	t.Parallel()
	hash := hashOf("secret")
	cases := []struct{ name, document, want string }{
		{"an unknown field", "storage_profiles:\n  - name: a\n    buckt: b\n", `document:3: storage_profiles[0].buckt: unknown field; did you mean "bucket"?`},
		{"an unknown top-level key", "organisations: []\n", `document:1: organisations: unknown field; did you mean "organizations"?`},
		{"an organization's id", "organizations:\n  - id: Acme\n", `document:2: organization "Acme": want a-z, 0-9, '-' and '_', beginning with a letter or digit`},
		{"an organization without an id", "organizations:\n  - name: x\n", `document:2: organization "": want 1 to 63 characters`},
		{"an organization declared twice", "organizations:\n  - id: a\n  - id: a\n", `document:3: organization "a" is declared twice; merge the two`},
		{"a profile without a bucket", "storage_profiles:\n  - name: a\n", "document:2: storage profile \"a\" names no bucket; add `bucket:`"},
		{"a profile without a name", "storage_profiles:\n  - bucket: a\n", `document:2: a storage profile has no name; give it one that is unique`},
		{"a profile declared twice", "storage_profiles:\n  - {name: a, bucket: b}\n  - {name: a, bucket: c}\n", `document:3: storage profile "a" is declared twice; rename one`},
		{"two profiles of one prefix", "storage_profiles:\n  - {name: a, bucket: b, prefix: x}\n  - name: c\n    bucket: b\n    prefix: x\n", `document:5: storage profiles "a" and "c" both claim prefix "x" of bucket "b"; give them different prefixes`},
		{"two ways to one bucket", "storage_profiles:\n  - {name: a, bucket: b}\n  - {name: c, bucket: b, prefix: x, region: y}\n", `document:3: storage profiles "a" and "c" reach bucket "b" differently; leave provider, endpoint, region, role, keys, path_style and directory out of the second`},
		{"a profile of an organization that is not declared", "organizations: [{id: acme}]\nstorage_profiles:\n  - {name: a, bucket: b, organization: amce}\n", `document:3: storage profile "a" names organization "amce", which is not declared; did you mean "acme"?`},
		{"a placeholder", "storage_profiles:\n  - {name: a, bucket: b, prefix: \"{org}/\"}\n", `document:2: prefix "{org}/": unknown placeholder {org}; want {organization}, {collector}, {signal} or *`},
		{"a placeholder that stands twice", "storage_profiles:\n  - {name: a, bucket: b, prefix: \"{signal}/{signal}\"}\n", `document:2: prefix "{signal}/{signal}": {signal} stands twice; use * for the second`},
		{"a prefix among our own files", "storage_profiles:\n  - {name: a, bucket: b, prefix: db/x}\n", `document:2: prefix "db/x": db/ is where LakeRunner keeps its own files; choose another`},
		{"a signal", "storage_profiles:\n  - {name: a, bucket: b, signal: log}\n", `document:2: unknown signal "log": want logs, metrics or spans`},
		{"on_rewrite", "storage_profiles:\n  - {name: a, bucket: b, on_rewrite: drop}\n", `document:2: on_rewrite is "drop"; want append or replace`},
		{"a provider", "storage_profiles:\n  - {name: a, bucket: b, provider: minio}\n", `document:2: provider is "minio"; want aws (also for every S3-compatible server, with an endpoint), gcp or file`},
		{"half a pair of keys", "storage_profiles:\n  - {name: a, bucket: b, access_key: k}\n", `document:2: an access key and a secret key belong together; give both, or neither to use the environment or a role`},
		{"a directory without its provider", "storage_profiles:\n  - {name: a, bucket: b, directory: /x}\n", "document:2: directory is only for `provider: file`"},
		{"an environment variable that is not set", "storage_profiles:\n  - name: a\n    bucket: b\n    access_key: k\n    secret_key_env: NOPE\n", `document:5: environment variable NOPE is not set; set it, or name another`},
		{"a negative limit", "limits:\n  max_streams: -1\n", `document:1: limits.max_streams is negative; 0 means no limit`},
		{"rows of years ahead", "limits: {accept_future: 3y}\n", `document:1: limits.accept_future is 26280h0m0s; want a year (365d) at most`},
		{"a negative price", "prices: {get: -1}\n", `document:1: prices.get is negative; give US dollars`},
		{"a key without a secret", "api_keys:\n  - {id: a, scopes: [admin]}\n", `document:2: API key "a": give either sha256 (the hash of the secret in hexadecimal) or secret_env (the environment variable that holds the secret)`},
		{"a key with a wrong hash", "api_keys:\n  - {id: a, scopes: [admin], sha256: abc}\n", `document:2: API key "a": sha256 is not 64 hexadecimal digits; make them with: printf %s "$SECRET" | sha256sum`},
		{"a key with a wrong scope", "api_keys:\n  - {id: a, scopes: [root, admin], sha256: " + hash + "}\n", `document:2: API key "a": unknown scope "root": want query, ingest or admin`},
		{"a key with the internal scope", "api_keys:\n  - {id: a, scopes: [internal, admin], sha256: " + hash + "}\n", `document:2: API key "a": unknown scope "internal": want query, ingest or admin`},
		{"a key without a scope", "api_keys:\n  - {id: a, organization: o, sha256: " + hash + "}\n", `document:2: API key "a" has no scopes; give one or more of query, ingest and admin`},
		{"a key without an organization", "api_keys:\n  - {id: a, scopes: [query], sha256: " + hash + "}\n", `document:2: API key "a" names no organization; only admin keys may do without`},
		{"two keys of one secret", "api_keys:\n  - {id: a, scopes: [admin], sha256: " + hash + "}\n  - {id: b, scopes: [admin], sha256: " + hash + "}\n", `document:3: API key "b" has the secret of another key; make a new one`},
		{"several at once", "organizations:\n  - id: A\nstorage_profiles:\n  - name: a\n", "document:2: organization \"A\": want a-z, 0-9, '-' and '_', beginning with a letter or digit\ndocument:4: storage profile \"a\" names no bucket; add `bucket:`"},
	}
	for _, c := range cases {
		t.Run("says file, line and remedy of "+c.name, func(t *testing.T) {
			t.Parallel()
			_, err := config.Static(c.document)
			if err == nil {
				t.Fatal("want an error")
			}
			if diff := cmp.Diff(c.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBuckets(t *testing.T) {
	t.Parallel()
	source, err := config.Static("storage_profiles: [{name: a, bucket: b, provider: file, directory: " + t.TempDir() + "}]")
	if err != nil {
		t.Fatal(err)
	}
	wrapped := 0
	store := config.Buckets(source, func(b objects.Bucket) objects.Bucket { wrapped++; return b })
	t.Run("a bucket is opened once", func(t *testing.T) {
		for range 3 {
			b, err := store.Bucket(t.Context(), "b")
			if err != nil || b.Name() != "b" {
				t.Fatalf("got %v, %v", b, err)
			}
		}
		if wrapped != 1 {
			t.Errorf("opened %d times", wrapped)
		}
	})
	t.Run("a bucket that no profile names is not found", func(t *testing.T) {
		if _, err := store.Bucket(t.Context(), "c"); !errors.Is(err, fault.NotFound) {
			t.Errorf("got %v", err)
		}
	})
}

func TestIdentityInContext(t *testing.T) {
	t.Parallel()
	if _, ok := config.IdentityFrom(t.Context()); ok {
		t.Error("want none")
	}
	want := config.Identity{KeyID: "k", Organization: lake.Organization("o")}
	got, ok := config.IdentityFrom(config.WithIdentity(t.Context(), want))
	if diff := cmp.Diff(want, got); !ok || diff != "" {
		t.Error(diff)
	}
}
