// SPDX-License-Identifier: AGPL-3.0-only

package config

import (
	"slices"
	"strings"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Metrics says how metrics become Prometheus series at ingest. What was ingested keeps the names that it got.
type Metrics struct {
	// PromoteResourceAttributes are the resource attributes that become labels of every series, beside job and instance.
	PromoteResourceAttributes []string
	// IdentifyingAttributes are those that become labels of the series of a resource without service.instance.id, so that two of
	// them never become one series.
	IdentifyingAttributes []string
	// UTF8Names keeps names of metrics and labels as they are. Otherwise what Prometheus did not use to allow becomes an underscore.
	UTF8Names bool
	// Suffixes adds the unit and _total to names of metrics.
	Suffixes bool
	// ScopeLabels adds otel_scope_name, otel_scope_version, otel_scope_schema_url and the scope's attributes.
	ScopeLabels bool
	// TargetInfo makes a series target_info of each resource, with all its attributes.
	TargetInfo bool
	// Mappings say how rows of CSV and Parquet objects are points; the first whose key fits decides.
	Mappings []MetricMapping
}

// MetricMapping says how the rows of a table are points of metrics. Columns are named as the object names them.
type MetricMapping struct {
	// Key is a pattern of the objects' keys, in which * stands for any characters.
	Key string
	// Time is the column of the time; TimeUnit says what its numbers count: s, ms, us or ns. Text is RFC 3339.
	Time, TimeUnit string
	// Name is the column that names the metric, and Value the one of its value. Without Name each of Values is a metric of its column's name.
	Name, Value string
	Values      []string
	// Labels are the columns that are labels; nil: all others. Static labels are added to every series.
	Labels []string
	Static map[string]string
	// Prefix is put before the name of every metric.
	Prefix string
	// Type is gauge, counter or unknown.
	Type string
}

// DefaultMetrics are in force where the configuration says nothing.
func DefaultMetrics() Metrics {
	return Metrics{
		PromoteResourceAttributes: []string{
			"service.name", "service.namespace", "service.version", "deployment.environment", "deployment.environment.name",
			"k8s.cluster.name", "k8s.namespace.name", "k8s.node.name", "k8s.pod.name", "k8s.container.name", "k8s.deployment.name",
			"k8s.statefulset.name", "k8s.daemonset.name", "k8s.replicaset.name", "k8s.job.name", "k8s.cronjob.name", "container.name",
			"host.name", "cloud.provider", "cloud.account.id", "cloud.region", "cloud.availability_zone",
		},
		IdentifyingAttributes: []string{
			"k8s.cluster.name", "k8s.namespace.name", "k8s.pod.name", "k8s.pod.uid", "k8s.container.name", "k8s.node.name",
			"container.id", "container.name", "host.id", "host.name", "process.pid", "faas.instance", "cloud.resource_id",
			"deployment.environment.name", "deployment.environment",
		},
		Suffixes:    true,
		ScopeLabels: true,
		TargetInfo:  true,
	}
}

// Mapping returns the mapping of an object's key; nil: none fits.
func (m *Metrics) Mapping(key string) *MetricMapping {
	for i := range m.Mappings {
		if glob(m.Mappings[i].Key, key) {
			return &m.Mappings[i]
		}
	}
	return nil
}

// glob reports whether text is the pattern, in which * stands for any characters.
func glob(pattern, text string) bool {
	first, rest, more := strings.Cut(pattern, "*")
	if !more {
		return pattern == text
	}
	text, ok := strings.CutPrefix(text, first)
	if !ok {
		return false
	}
	parts := strings.Split(rest, "*")
	last := parts[len(parts)-1]
	for _, part := range parts[:len(parts)-1] {
		at := strings.Index(text, part)
		if at < 0 {
			return false
		}
		text = text[at+len(part):]
	}
	return strings.HasSuffix(text, last)
}

// metricsForm is Metrics as written: a field left out is the outer layer's.
type metricsForm struct {
	PromoteResourceAttributes list[string]      `yaml:"promote_resource_attributes,omitempty"`
	IdentifyingAttributes     list[string]      `yaml:"identifying_attributes,omitempty"`
	UTF8Names                 *bool             `yaml:"utf8_names,omitempty"`
	Suffixes                  *bool             `yaml:"suffixes,omitempty"`
	ScopeLabels               *bool             `yaml:"scope_labels,omitempty"`
	TargetInfo                *bool             `yaml:"target_info,omitempty"`
	Mappings                  list[mappingForm] `yaml:"mappings,omitempty"`
}

// mappingForm is MetricMapping as written.
type mappingForm struct {
	Key      string            `yaml:"key"`
	Time     string            `yaml:"time"`
	TimeUnit string            `yaml:"time_unit,omitempty"`
	Name     string            `yaml:"name,omitempty"`
	Value    string            `yaml:"value,omitempty"`
	Values   list[string]      `yaml:"values,omitempty"`
	Labels   list[string]      `yaml:"labels,omitempty"`
	Static   map[string]string `yaml:"static,omitempty"`
	Prefix   string            `yaml:"prefix,omitempty"`
	Type     string            `yaml:"type,omitempty"`
}

// over returns the settings with those that were written in place of the outer ones.
func (f metricsForm) over(outer Metrics) Metrics {
	if f.PromoteResourceAttributes != nil {
		outer.PromoteResourceAttributes = f.PromoteResourceAttributes
	}
	if f.IdentifyingAttributes != nil {
		outer.IdentifyingAttributes = f.IdentifyingAttributes
	}
	replace(&outer.UTF8Names, f.UTF8Names)
	replace(&outer.Suffixes, f.Suffixes)
	replace(&outer.ScopeLabels, f.ScopeLabels)
	replace(&outer.TargetInfo, f.TargetInfo)
	if f.Mappings != nil {
		outer.Mappings = nil
		for _, m := range f.Mappings {
			outer.Mappings = append(outer.Mappings, m.mapping())
		}
	}
	return outer
}

// writtenMetrics is the inverse of over.
func writtenMetrics(m Metrics) metricsForm {
	f := metricsForm{
		PromoteResourceAttributes: append(list[string]{}, m.PromoteResourceAttributes...),
		IdentifyingAttributes:     append(list[string]{}, m.IdentifyingAttributes...),
		UTF8Names:                 &m.UTF8Names, Suffixes: &m.Suffixes, ScopeLabels: &m.ScopeLabels, TargetInfo: &m.TargetInfo,
	}
	for _, mapping := range m.Mappings {
		f.Mappings = append(f.Mappings, writtenMapping(mapping))
	}
	return f
}

func (f mappingForm) mapping() MetricMapping {
	return MetricMapping{
		Key: f.Key, Time: f.Time, TimeUnit: f.TimeUnit, Name: f.Name, Value: f.Value, Values: f.Values,
		Labels: f.Labels, Static: f.Static, Prefix: f.Prefix, Type: f.Type,
	}
}

// writtenMapping is the inverse of mapping.
func writtenMapping(m MetricMapping) mappingForm {
	return mappingForm{
		Key: m.Key, Time: m.Time, TimeUnit: m.TimeUnit, Name: m.Name, Value: m.Value, Values: m.Values,
		Labels: m.Labels, Static: m.Static, Prefix: m.Prefix, Type: m.Type,
	}
}

func (f metricsForm) problems(fail failure) {
	for i, name := range slices.Concat(f.PromoteResourceAttributes, f.IdentifyingAttributes) {
		if name == "" {
			fail("metrics", "metrics: attribute %d has no name; take it out", i)
		}
	}
	for i, m := range f.Mappings {
		switch {
		case m.Key == "":
			fail("metrics", `metrics.mappings[%d] has no key; add `+"`key:`"+`, a pattern of the objects' keys such as "meters/*.csv"`, i)
		case m.Time == "":
			fail("metrics", "metrics.mappings[%d] has no time; add `time:`, the name of the column", i)
		case !slices.Contains([]string{"", "s", "ms", "us", "ns"}, m.TimeUnit):
			fail("metrics", "metrics.mappings[%d]: time_unit is %q; want s, ms, us or ns", i, m.TimeUnit)
		case (m.Name == "") != (m.Value == ""):
			fail("metrics", "metrics.mappings[%d]: name and value belong together: the columns of the metric's name and of its value", i)
		case (m.Name == "") == (len(m.Values) == 0):
			fail("metrics", "metrics.mappings[%d]: give either name and value, or values: the columns that are metrics each", i)
		case !slices.Contains([]string{"", "gauge", "counter", "unknown"}, m.Type):
			fail("metrics", "metrics.mappings[%d]: type is %q; want gauge, counter or unknown", i, m.Type)
		}
	}
}

// MetricsOf returns the metric settings of an organization, or the defaults of this configuration.
func (s *Snapshot) MetricsOf(id lake.Organization) Metrics {
	if organization, ok := s.Organization(id); ok {
		return organization.Metrics
	}
	return s.fallback.Metrics
}
