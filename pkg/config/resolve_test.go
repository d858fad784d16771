// SPDX-License-Identifier: AGPL-3.0-only

package config_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

func snapshot(t *testing.T, document string) *config.Snapshot {
	t.Helper()
	source, err := config.Static(document)
	if err != nil {
		t.Fatal(err)
	}
	return source.Current()
}

type resolved struct {
	Organization lake.Organization
	Collector    string
	Signal       lake.Signal
	Profile      string
	Skip         string
}

func resolve(s *config.Snapshot, bucket, key string) resolved {
	r := s.Resolve(bucket, key)
	out := resolved{Organization: r.Organization, Collector: r.Collector, Signal: r.Signal, Skip: r.SkipReason}
	if r.Profile != nil {
		out.Profile = r.Profile.Name
	}
	if out.Skip != "" {
		out.Organization, out.Collector, out.Signal = "", "", lake.SignalUnknown
	}
	return out
}

const resolving = `
organizations: [{id: acme}, {id: globex}, {id: "2024"}]
storage_profiles:
  - {name: plain, bucket: lake}
  - {name: vendor, bucket: lake, prefix: vendor/, organization: acme, collector: vendor, signal: metrics}
  - {name: vendor-logs, bucket: lake, prefix: vendor/logs, organization: globex, signal: logs}
  - {name: tenants, bucket: lake, prefix: "tenants/{organization}/{collector}/{signal}/"}
  - {name: regions, bucket: lake, prefix: "tenants/*/eu-", organization: globex}
  - {name: named, bucket: lake, prefix: "raw-{organization}"}
  - {name: owned, bucket: owned, organization: acme, collector: house}
  - {name: only, bucket: narrow, prefix: in/, organization: acme}
  - {name: everything, bucket: all-metrics, organization: acme, signal: metrics}
`

func TestResolve(t *testing.T) {
	t.Parallel()
	s := snapshot(t, resolving)
	const logs, metrics, spans, unknown = lake.SignalLogs, lake.SignalMetrics, lake.SignalSpans, lake.SignalUnknown
	cases := []struct {
		name, bucket, key string
		want              resolved
	}{
		{"otel-raw names organization and collector", "lake", "otel-raw/acme/gw/year=2026/logs_123.json", resolved{"acme", "gw", logs, "plain", ""}},
		{"the signal is in the object's name", "lake", "otel-raw/acme/gw/metrics_9.binpb.gz", resolved{"acme", "gw", metrics, "plain", ""}},
		{"traces are spans", "lake", "otel-raw/acme/gw/traces_0192f0c4-aaaa.binpb", resolved{"acme", "gw", spans, "plain", ""}},
		{"a file prefix stands before the signal", "lake", "otel-raw/acme/gw/edge-logs_1.json", resolved{"acme", "gw", logs, "plain", ""}},
		{"a name of two signals leaves it to the content", "lake", "otel-raw/acme/gw/logs-metrics_1.json", resolved{"acme", "gw", unknown, "plain", ""}},
		{"a name of no signal leaves it to the content", "lake", "otel-raw/acme/gw/catalogs_1.json", resolved{"acme", "gw", unknown, "plain", ""}},
		{"a directory of a signal's name is not the object's name", "lake", "otel-raw/acme/gw/logs/1.json", resolved{"acme", "gw", unknown, "plain", ""}},
		{"capitals in the name do not matter", "lake", "otel-raw/acme/gw/LOGS_1.JSON", resolved{"acme", "gw", logs, "plain", ""}},
		{"an object beside the collectors has none", "lake", "otel-raw/acme/logs_1.json", resolved{"acme", "", logs, "plain", ""}},
		{"an empty collector is none", "lake", "otel-raw/acme//logs_1.json", resolved{"acme", "", logs, "plain", ""}},
		{"keys may hold anything behind the collector", "lake", "otel-raw/acme/gw/a b/ü+%2F\n/logs_1", resolved{"acme", "gw", logs, "plain", ""}},
		{"keys may hold bytes that are no UTF-8", "lake", "otel-raw/acme/g\xffw/logs_1", resolved{"acme", "g\xffw", logs, "plain", ""}},
		{"an organization that is not declared", "lake", "otel-raw/initech/gw/logs_1", resolved{Profile: "plain", Skip: `organization "initech" is not configured`}},
		{"an organization in capitals", "lake", "otel-raw/Acme/gw/logs_1", resolved{Profile: "plain", Skip: `key names no organization: organization "Acme": want a-z, 0-9, '-' and '_', beginning with a letter or digit`}},
		{"an empty organization", "lake", "otel-raw//gw/logs_1", resolved{Profile: "plain", Skip: "key names no organization: otel-raw/ is followed by an empty path segment"}},
		{"a parent directory is no organization", "lake", "otel-raw/../gw/logs_1", resolved{Profile: "plain", Skip: `key names no organization: organization "..": want a-z, 0-9, '-' and '_', beginning with a letter or digit`}},
		{"otel-raw without an organization is the profile's", "owned", "otel-raw/logs_1", resolved{"acme", "house", logs, "owned", ""}},
		{"otel-raw of another organization is not the profile's", "owned", "otel-raw/initech/gw/logs_1", resolved{Profile: "owned", Skip: `organization "initech" is not configured`}},
		{"otel-raw names an organization over the profile's", "owned", "otel-raw/globex/gw/logs_1", resolved{"globex", "gw", logs, "owned", ""}},
		{"otel-raw without a name in it is nobody's", "lake", "otel-raw/logs_1", resolved{Profile: "plain", Skip: config.SkipUnclaimed}},
		{"a longer word than otel-raw is no convention", "lake", "otel-raw2/acme/gw/logs_1", resolved{Profile: "plain", Skip: config.SkipUnclaimed}},
		{"a leading slash is no convention", "lake", "/otel-raw/acme/gw/logs_1", resolved{Profile: "plain", Skip: config.SkipUnclaimed}},

		{"logs-raw names organization and collector", "lake", "logs-raw/acme/agent/x.gz", resolved{"acme", "agent", logs, "plain", ""}},
		{"metrics-raw is metrics whatever the name says", "lake", "metrics-raw/acme/agent/logs_1", resolved{"acme", "agent", metrics, "plain", ""}},
		{"traces-raw is spans", "lake", "traces-raw/globex/agent/x", resolved{"globex", "agent", spans, "plain", ""}},
		{"logs-raw without a known organization is the profile's", "owned", "logs-raw/app/web/x", resolved{"acme", "house", logs, "owned", ""}},
		{"logs-raw with a date is the profile's", "owned", "logs-raw/2025/01/02/x", resolved{"acme", "house", logs, "owned", ""}},
		{"logs-raw of a known organization is that one's", "owned", "logs-raw/globex/web/x", resolved{"globex", "web", logs, "owned", ""}},
		{"logs-raw with one directory is the profile's", "owned", "logs-raw/globex/x", resolved{"acme", "house", logs, "owned", ""}},
		{"logs-raw without an organization is nobody's", "lake", "logs-raw/x", resolved{Profile: "plain", Skip: config.SkipUnclaimed}},
		{"logs-raw of an unknown organization is nobody's", "lake", "logs-raw/initech/web/x", resolved{Profile: "plain", Skip: `organization "initech" is not configured`}},

		{"a prefix claims its keys", "lake", "vendor/a/b", resolved{"acme", "vendor", metrics, "vendor", ""}},
		{"the longest prefix claims them", "lake", "vendor/logs/a", resolved{"globex", "", logs, "vendor-logs", ""}},
		{"a prefix need not end with a slash", "lake", "vendor/logsheet", resolved{"globex", "", logs, "vendor-logs", ""}},
		{"a prefix that is not whole claims nothing", "lake", "vendo", resolved{Profile: "plain", Skip: config.SkipUnclaimed}},
		{"a pattern reads organization, collector and signal", "lake", "tenants/acme/c1/traces/x", resolved{"acme", "c1", spans, "tenants", ""}},
		{"a pattern wants a signal's name", "lake", "tenants/acme/c1/events/x", resolved{Profile: "plain", Skip: config.SkipUnclaimed}},
		{"a pattern's organization must exist", "lake", "tenants/initech/c1/logs/x", resolved{Profile: "tenants", Skip: `organization "initech" is not configured`}},
		{"a pattern's star takes one directory", "lake", "tenants/x/eu-1/logs", resolved{"globex", "", unknown, "regions", ""}},
		{"most literal characters win", "lake", "tenants/acme/eu-1/logs/x", resolved{"globex", "", unknown, "regions", ""}},
		{"a placeholder at the end takes the whole segment", "lake", "raw-acme/x", resolved{"acme", "", unknown, "named", ""}},
		{"a placeholder at the end may end the key", "lake", "raw-globex", resolved{"globex", "", unknown, "named", ""}},
		{"the profile of the whole bucket takes the rest", "owned", "any/where.log", resolved{"acme", "house", unknown, "owned", ""}},
		{"the profile's signal stands where the name is silent", "all-metrics", "otel-raw/acme/c/1.json", resolved{"acme", "c", metrics, "everything", ""}},
		{"the name's signal is stronger than the profile's", "all-metrics", "otel-raw/acme/c/logs_1.json", resolved{"acme", "c", logs, "everything", ""}},
		{"conventions hold only in a profile of the whole bucket", "narrow", "otel-raw/acme/c/logs_1", resolved{Profile: "only", Skip: config.SkipUnclaimed}},

		{"own files", "lake", "db/acme/logs/2026-01-01/l/000000.parquet", resolved{Profile: "plain", Skip: config.SkipOwn}},
		{"db without a slash is a key like any", "owned", "dbx", resolved{"acme", "house", unknown, "owned", ""}},
		{"a key that begins like own files elsewhere", "owned", "logs/db/x", resolved{"acme", "house", unknown, "owned", ""}},
		{"a directory marker", "lake", "otel-raw/acme/gw/", resolved{Profile: "plain", Skip: config.SkipMarker}},
		{"a slash alone", "owned", "/", resolved{Profile: "owned", Skip: config.SkipMarker}},
		{"a directory marker of Hadoop", "owned", "a/b_$folder$", resolved{Profile: "owned", Skip: config.SkipMarker}},
		{"no key", "lake", "", resolved{Profile: "plain", Skip: config.SkipNoKey}},
		{"an unknown bucket", "lakes", "otel-raw/acme/gw/logs_1", resolved{Skip: config.SkipNoBucket}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, resolve(s, c.bucket, c.key)); diff != "" {
				t.Errorf("%s %q:\n%s", c.bucket, c.key, diff)
			}
		})
	}
}

func TestResolveWithoutDeclaredOrganizations(t *testing.T) {
	t.Parallel()
	s := snapshot(t, "storage_profiles: [{name: p, bucket: b}, {name: q, bucket: c, organization: house}]")
	t.Run("admits every valid id that a key names", func(t *testing.T) {
		t.Parallel()
		for key, want := range map[string]resolved{
			"otel-raw/5b1f0c3e-7d0e-4a58-9d0a-3c1f5b8f2a10/gw/logs_1": {"5b1f0c3e-7d0e-4a58-9d0a-3c1f5b8f2a10", "gw", lake.SignalLogs, "p", ""},
			"logs-raw/new/gw/1": {"new", "gw", lake.SignalLogs, "p", ""},
			"other/1":           {Profile: "p", Skip: config.SkipUnclaimed},
		} {
			if diff := cmp.Diff(want, resolve(s, "b", key)); diff != "" {
				t.Errorf("%s: %s", key, diff)
			}
		}
	})
	t.Run("keeps to the profile's organization below logs-raw", func(t *testing.T) {
		t.Parallel()
		if got := resolve(s, "c", "logs-raw/app/web/1"); got.Organization != "house" {
			t.Errorf("got %+v", got)
		}
	})
}

func FuzzResolve(f *testing.F) {
	f.Add("lake", "otel-raw/acme/gw/logs_1.json")
	f.Add("lake", "tenants/acme/c1/traces/x")
	f.Add("owned", "logs-raw//x")
	source, err := config.Static(resolving)
	if err != nil {
		f.Fatal(err)
	}
	s := source.Current()
	f.Fuzz(func(t *testing.T, bucket, key string) {
		r := s.Resolve(bucket, key)
		if r.SkipReason != "" {
			return
		}
		if _, ok := s.Organization(r.Organization); !ok || r.Profile == nil || lake.OwnKey(key) {
			t.Errorf("%q %q: resolved to %+v", bucket, key, r)
		}
	})
}
