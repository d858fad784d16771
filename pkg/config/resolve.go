// SPDX-License-Identifier: AGPL-3.0-only

package config

import (
	"fmt"
	"strings"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Resolution says whose an object is and what to expect in it.
type Resolution struct {
	Organization lake.Organization
	Collector    string      // what wrote it; may be empty
	Signal       lake.Signal // SignalUnknown: the content decides
	// Profile is the storage profile that decided, or the first of the bucket. Nil only when none names the bucket.
	Profile *Profile
	// SkipReason is not empty when the object is no telemetry, or nobody's; the other fields are then what was found out until there.
	SkipReason string
}

// Reasons to skip an object, as receipts show them. Others name what was wrong with the key.
const (
	// SkipEmpty is for an object without content. Resolve does not see sizes: the notifier gives this one.
	SkipEmpty     = "empty object"
	SkipMarker    = "directory marker"
	SkipOwn       = "written by LakeRunner itself"
	SkipNoKey     = "object without a key"
	SkipNoBucket  = "no storage profile names the bucket"
	SkipUnclaimed = "no storage profile claims the key"
)

// Resolve finds the organization, collector and signal of an object by its bucket and (decoded) key. The rules are those of
// docs/configuration.md, "Whose an object is":
//
//  1. Own files (db/), directory markers and objects without a key are skipped.
//  2. Of the bucket's profiles whose prefix pattern matches the key, the one with the most literal characters decides.
//  3. Is that a profile without a prefix, the conventional prefixes otel-raw/, logs-raw/, metrics-raw/ and traces-raw/ come first.
func (s *Snapshot) Resolve(bucket, key string) Resolution {
	first, ok := s.Profile(bucket)
	if !ok {
		return Resolution{SkipReason: SkipNoBucket}
	}
	if reason := skipped(key); reason != "" {
		return Resolution{Profile: first, SkipReason: reason}
	}
	for _, profile := range s.buckets[bucket] {
		if values, ok := profile.pattern.match(key); ok {
			return s.admitted(profile.resolve(s, key, values))
		}
	}
	return Resolution{Profile: first, SkipReason: SkipUnclaimed}
}

func skipped(key string) string {
	switch {
	case key == "":
		return SkipNoKey
	case lake.OwnKey(key):
		return SkipOwn
	// Hadoop's tools mark directories with a suffix, consoles with a trailing slash.
	case strings.HasSuffix(key, "/"), strings.HasSuffix(key, "_$folder$"):
		return SkipMarker
	}
	return ""
}

func (p *Profile) resolve(s *Snapshot, key string, values map[string]string) Resolution {
	r := Resolution{Organization: p.Organization, Collector: p.Collector, Signal: p.Signal, Profile: p}
	if p.Prefix == "" {
		return r.byConvention(s, key)
	}
	if organization := values["organization"]; organization != "" {
		r.Organization = lake.Organization(organization)
	}
	if collector := values["collector"]; collector != "" {
		r.Collector = collector
	}
	if signal, err := lake.ParseSignal(values["signal"]); err == nil && signal != lake.SignalUnknown {
		r.Signal = signal
	}
	return r
}

// byConvention applies the prefixes that collectors are documented to write to.
func (r Resolution) byConvention(s *Snapshot, key string) Resolution {
	first, rest, _ := strings.Cut(key, "/")
	switch first {
	case "otel-raw":
		return r.otelRaw(rest)
	case "logs-raw":
		return r.signalRaw(s, rest, lake.SignalLogs)
	case "metrics-raw":
		return r.signalRaw(s, rest, lake.SignalMetrics)
	case "traces-raw":
		return r.signalRaw(s, rest, lake.SignalSpans)
	}
	return r
}

// otelRaw reads {organization}/{collector}/...: the key names the organization, and no other may have the object.
func (r Resolution) otelRaw(rest string) Resolution {
	directories, name := split(rest)
	if len(directories) > 0 {
		r.Organization = lake.Organization(directories[0])
		if directories[0] == "" {
			r.SkipReason = "key names no organization: otel-raw/ is followed by an empty path segment"
			return r
		}
	}
	if len(directories) > 1 && directories[1] != "" {
		r.Collector = directories[1]
	}
	if signal := signalOf(name); signal != lake.SignalUnknown {
		r.Signal = signal
	}
	return r
}

// signalRaw reads {organization}/{collector}/... where that names an organization, and else leaves the profile's.
func (r Resolution) signalRaw(s *Snapshot, rest string, signal lake.Signal) Resolution {
	r.Signal = signal
	directories, _ := split(rest)
	if len(directories) < 2 || directories[1] == "" {
		return r
	}
	named := lake.Organization(directories[0])
	if _, declared := s.organizations[named]; declared || r.Organization == "" {
		r.Organization, r.Collector = named, directories[1]
	}
	return r
}

// split cuts a path into its directories and its last segment.
func split(path string) (directories []string, name string) {
	segments := strings.Split(path, "/")
	return segments[:len(segments)-1], segments[len(segments)-1]
}

// signalOf reads the signal off an object's name, as OpenTelemetry's exporters give it: [file prefix]logs_<unique>.<format>. It is
// a word of its own; a name with words of two signals says nothing.
func signalOf(name string) lake.Signal {
	found := lake.SignalUnknown
	for _, word := range strings.FieldsFunc(strings.ToLower(name), notAlphanumeric) {
		signal, err := lake.ParseSignal(word)
		if err != nil || signal == lake.SignalUnknown || signal == found {
			continue
		}
		if found != lake.SignalUnknown {
			return lake.SignalUnknown
		}
		found = signal
	}
	return found
}

func notAlphanumeric(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9')
}

// admitted turns a resolution to an organization that does not exist into a skip.
func (s *Snapshot) admitted(r Resolution) Resolution {
	if r.SkipReason != "" {
		return r
	}
	if r.Organization == "" {
		r.SkipReason = SkipUnclaimed
		return r
	}
	if err := r.Organization.Valid(); err != nil {
		r.Organization, r.SkipReason = "", fmt.Sprintf("key names no organization: %v", err)
		return r
	}
	if _, ok := s.Organization(r.Organization); !ok {
		// Nobody's until it is: then the next event, listing or backfill that comes by the object has it ingested.
		r.Organization, r.SkipReason = "", fmt.Sprintf("organization %q is not configured", r.Organization)
	}
	return r
}
