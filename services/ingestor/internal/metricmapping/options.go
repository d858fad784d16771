// SPDX-License-Identifier: AGPL-3.0-only

package metricmapping

import (
	"slices"
	"strings"

	"github.com/lakerunner/lakerunner/pkg/config"
)

// Options say how names and labels of OTLP metrics come about. Metrics of Prometheus' have theirs already.
type Options struct {
	// Promote names the resource attributes that are labels of every series of the resource. Identifying are more of them, for resources that have no
	// service.instance.id.
	Promote, Identifying []string
	// UTF8 keeps names of metrics and labels as they are. Suffixes adds unit and _total to names of metrics.
	UTF8, Suffixes bool
	// ScopeLabels adds the labels otel_scope_*; without them series that differ by their scope alone are one. TargetInfo makes target_info.
	ScopeLabels, TargetInfo bool
	// MaxAttributes is the most attributes of a point, those of its resource and scope included; MaxLabelBytes the longest name and value of a
	// label together. Zero: no limit.
	MaxAttributes, MaxLabelBytes int
}

func (o Options) equal(other Options) bool {
	return slices.Equal(o.Promote, other.Promote) && slices.Equal(o.Identifying, other.Identifying) && o.UTF8 == other.UTF8 &&
		o.Suffixes == other.Suffixes && o.ScopeLabels == other.ScopeLabels && o.TargetInfo == other.TargetInfo &&
		o.MaxAttributes == other.MaxAttributes && o.MaxLabelBytes == other.MaxLabelBytes
}

// OptionsOf are what an organization says of its metrics, within its limits.
func OptionsOf(m config.Metrics, l config.Limits) Options {
	return Options{
		Promote: m.PromoteResourceAttributes, Identifying: m.IdentifyingAttributes, UTF8: m.UTF8Names, Suffixes: m.Suffixes,
		ScopeLabels: m.ScopeLabels, TargetInfo: m.TargetInfo, MaxAttributes: l.MaxAttributes, MaxLabelBytes: l.MaxLineBytes,
	}
}

// identifies reports whether a resource attribute is one of those each of which tells one instance of a service from another.
func identifies(name string) bool {
	switch name {
	case "k8s.pod.uid", "k8s.pod.name", "k8s.container.name", "container.id", "container.name", "host.id", "host.name", "k8s.node.uid", "k8s.node.name",
		"process.pid", "faas.instance", "device.id", "cloud.resource_id", "aws.ecs.task.arn", "aws.ecs.task.id":
		return true
	}
	return false
}

// describes reports whether a resource attribute only describes what others identify. Such attributes are no labels where an instance is known by
// better ones; all others are, since whatever may tell two resources from one another has to.
func describes(name string) bool {
	switch name {
	case "process.command", "process.command_args", "process.command_line", "process.owner", "process.executable.path", "host.arch", "host.type",
		"host.ip", "host.mac", "service.instance.id":
		return true
	}
	for _, prefix := range []string{"telemetry.", "os.", "process.runtime.", "host.cpu.", "host.image.", "container.image.", "container.command"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
