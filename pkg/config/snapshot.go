// SPDX-License-Identifier: AGPL-3.0-only

package config

import (
	"slices"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// Source gives the configuration in force.
type Source interface {
	// Current returns the snapshot in force. It never changes; a change of the configuration is another snapshot.
	Current() *Snapshot
}

// Snapshot is a whole, valid configuration at one moment. Its values are shared: read them, do not change them.
type Snapshot struct {
	organizations map[lake.Organization]*Organization
	// fallback is what an organization is that no layer declares; used only while none is declared.
	fallback Organization
	profiles []*Profile            // in the order of the layers
	buckets  map[string][]*Profile // the same by bucket, the longest prefix first
	keys     keyring
	rollups  []RollupPolicy // as the top level has them written; nil: it does not
	layers   []layer        // what it was built from, for GetConfig
}

// Organization is a tenant.
type Organization struct {
	ID   lake.Organization
	Name string // for people
	// Limits bound it, its acceptance window among them.
	Limits Limits
	// StreamLabels are the names of the resource attributes that are stream labels, where the storage profile has none of its own.
	StreamLabels []string
	// TrustedHeader lets a request without a key act for this organization by naming it in X-Scope-OrgID.
	TrustedHeader bool
	// Retention says how long rows are kept; the first policy that fits decides, and rows that none fits are kept for ever.
	Retention []RetentionPolicy
	// Rollups are the tiers that are made of its metrics and logs.
	Rollups []RollupPolicy
	// Metrics says how its metrics become series.
	Metrics Metrics
	// Fields are the rules that change fields of rows as they grow old.
	Fields []FieldRule
}

// OnRewrite is what becomes of an object's rows when its key is written again with other content.
type OnRewrite string

// The two answers to a rewrite.
const (
	// Append keeps the older version's rows beside the newer one's: names that collide bring different rows.
	Append OnRewrite = "append"
	// Replace masks the older version's rows: the newer one is a superset.
	Replace OnRewrite = "replace"
)

// Profile is a storage profile: a bucket or a part of it, how to reach it, and whose its objects are.
type Profile struct {
	Name string
	// Location is how to reach the bucket. All profiles of one bucket have the same.
	Location objects.Location
	// Prefix is a pattern; empty: the whole bucket. See docs/configuration.md.
	Prefix string
	// Organization, Collector and Signal are what the objects are, where prefix and name do not say.
	Organization lake.Organization
	Collector    string
	Signal       lake.Signal
	OnRewrite    OnRewrite
	// StreamLabels are the names of the resource attributes that are stream labels; nil: the organization's.
	StreamLabels []string
	Prices       Prices
	// Raw is what becomes of the source objects once they are ingested.
	Raw RawPolicy
	// RowIdentity is the log attribute that identifies a row within the organization: of rows with the same value and hour one is
	// kept. Empty: rows are never taken for doubles.
	RowIdentity string

	pattern pattern
}

// Bucket is the name of the profile's bucket.
func (p *Profile) Bucket() string { return p.Location.Name }

// Organizations returns the declared organizations, ordered by id. None: every organization that a key or a prefix names is admitted.
func (s *Snapshot) Organizations() []*Organization {
	out := make([]*Organization, 0, len(s.organizations))
	for _, organization := range s.organizations {
		out = append(out, organization)
	}
	slices.SortFunc(out, func(a, b *Organization) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return out
}

// Organization returns an organization. While none is declared, every valid id is one, with the defaults.
func (s *Snapshot) Organization(id lake.Organization) (*Organization, bool) {
	if organization, ok := s.organizations[id]; ok {
		return organization, true
	}
	if len(s.organizations) > 0 || id.Valid() != nil {
		return nil, false
	}
	organization := s.fallback
	organization.ID = id
	return &organization, true
}

// Profiles returns all storage profiles in the order of the configuration.
func (s *Snapshot) Profiles() []*Profile { return slices.Clone(s.profiles) }

// Profile returns the first storage profile of a bucket.
func (s *Snapshot) Profile(bucket string) (*Profile, bool) {
	for _, profile := range s.profiles {
		if profile.Bucket() == bucket {
			return profile, true
		}
	}
	return nil, false
}

// StreamLabels returns the names of the resource attributes that are stream labels for objects of that resolution.
func (s *Snapshot) StreamLabels(r Resolution) []string {
	if r.Profile != nil && r.Profile.StreamLabels != nil {
		return r.Profile.StreamLabels
	}
	if organization, ok := s.Organization(r.Organization); ok {
		return organization.StreamLabels
	}
	return s.fallback.StreamLabels
}

// DefaultStreamLabels are the resource attributes that Loki's OTLP endpoint makes stream labels of unless told otherwise.
func DefaultStreamLabels() []string {
	return []string{
		"service.name",
		"service.namespace",
		"service.instance.id",
		"deployment.environment",
		"deployment.environment.name",
		"cloud.region",
		"cloud.availability_zone",
		"k8s.cluster.name",
		"k8s.namespace.name",
		"k8s.pod.name",
		"k8s.container.name",
		"container.name",
		"k8s.replicaset.name",
		"k8s.deployment.name",
		"k8s.statefulset.name",
		"k8s.daemonset.name",
		"k8s.cronjob.name",
		"k8s.job.name",
	}
}
