// SPDX-License-Identifier: AGPL-3.0-only

package config

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/lakerunner/lakerunner/pkg/config/internal/db"
	"github.com/lakerunner/lakerunner/pkg/internal/strictyaml"
)

// The kinds of item in configdb.
const (
	kindOrganization = "organization"
	kindProfile      = "storage_profile"
	kindSettings     = "settings"
)

// item is one row of configdb: an organization, a storage profile, or the settings that stand alone.
type item struct{ kind, name, body string }

func (i item) String() string {
	if i.kind == kindSettings {
		return "settings"
	}
	return strings.ReplaceAll(i.kind, "_", " ") + " " + i.name
}

// settingsForm is what of a form stands alone.
type settingsForm struct {
	Limits        limitsForm   `yaml:"limits,omitempty"`
	Prices        pricesForm   `yaml:"prices,omitempty"`
	StreamLabels  list[string] `yaml:"stream_labels,omitempty"`
	TrustedHeader *bool        `yaml:"trusted_header,omitempty"`

	Retention list[retentionForm] `yaml:"retention,omitempty"`
	Rollups   list[rollupForm]    `yaml:"rollups,omitempty"`
	Metrics   metricsForm         `yaml:"metrics,omitempty"`
}

// itemsOf takes a form apart. API keys are not in it.
func itemsOf(f form) ([]item, error) {
	var items []item
	add := func(kind, name string, form any) error {
		body, err := yaml.Marshal(form)
		if err != nil {
			return fmt.Errorf("write %s %s as YAML: %w", kind, name, err)
		}
		items = append(items, item{kind: kind, name: name, body: string(body)})
		return nil
	}
	for _, organization := range f.Organizations {
		if err := add(kindOrganization, organization.ID, organization); err != nil {
			return nil, err
		}
	}
	for _, profile := range f.StorageProfiles {
		if err := add(kindProfile, profile.Name, profile); err != nil {
			return nil, err
		}
	}
	settings := settingsForm{
		Limits: f.Limits, Prices: f.Prices, StreamLabels: f.StreamLabels, TrustedHeader: f.TrustedHeader,
		Retention: f.Retention, Rollups: f.Rollups, Metrics: f.Metrics,
	}
	if !reflect.ValueOf(settings).IsZero() {
		if err := add(kindSettings, "", settings); err != nil {
			return nil, err
		}
	}
	return items, nil
}

// formOf puts a form together. A field that this release does not know is one of a newer release, and is left out.
func formOf(rows []db.ItemsRow) (form, error) {
	f := form{Pos: strictyaml.Pos{File: dbName}}
	for _, row := range rows {
		document, err := strictyaml.Parse(fmt.Sprintf("%s, %s", dbName, item{kind: row.Kind, name: row.Name}), []byte(row.Body))
		if err != nil {
			return form{}, err
		}
		document = document.Lenient()
		switch row.Kind {
		case kindOrganization:
			f.Organizations = append(f.Organizations, organizationForm{})
			err = document.Decode(&f.Organizations[len(f.Organizations)-1])
		case kindProfile:
			f.StorageProfiles = append(f.StorageProfiles, profileForm{})
			err = document.Decode(&f.StorageProfiles[len(f.StorageProfiles)-1])
		case kindSettings:
			var settings settingsForm
			err = document.Decode(&settings)
			f.Limits, f.Prices, f.StreamLabels, f.TrustedHeader = settings.Limits, settings.Prices, settings.StreamLabels, settings.TrustedHeader
			f.Retention, f.Rollups, f.Metrics = settings.Retention, settings.Rollups, settings.Metrics
		}
		if err != nil {
			return form{}, err
		}
	}
	return f, nil
}

// change is one step from the stored items to the wanted ones.
type change struct {
	line     string
	put      *item
	position int
	remove   *item
}

// difference returns the steps from one set of items to the other, removals first.
func difference(stored, wanted []item) []change {
	var changes []change
	for i := range stored {
		if find(wanted, stored[i]) == nil {
			changes = append(changes, change{line: "remove " + stored[i].String(), remove: &stored[i]})
		}
	}
	for i := range wanted {
		old := find(stored, wanted[i])
		switch {
		case old == nil:
			changes = append(changes, change{line: "add " + wanted[i].String(), put: &wanted[i], position: i})
		case old.body != wanted[i].body:
			line := fmt.Sprintf("change %s: %s", wanted[i], strings.Join(changedFields(old.body, wanted[i].body), ", "))
			changes = append(changes, change{line: line, put: &wanted[i], position: i})
		}
	}
	return changes
}

func find(items []item, like item) *item {
	i := slices.IndexFunc(items, func(other item) bool { return other.kind == like.kind && other.name == like.name })
	if i < 0 {
		return nil
	}
	return &items[i]
}

// changedFields names the fields that differ between two bodies; their values may be secret.
func changedFields(before, after string) []string {
	a, b := map[string]any{}, map[string]any{}
	// Both were written by itemsOf, so they are mappings.
	_ = yaml.Unmarshal([]byte(before), &a)
	_ = yaml.Unmarshal([]byte(after), &b)
	names := map[string]bool{}
	for name := range maps.Keys(a) {
		names[name] = !reflect.DeepEqual(a[name], b[name])
	}
	for name := range maps.Keys(b) {
		names[name] = !reflect.DeepEqual(a[name], b[name])
	}
	maps.DeleteFunc(names, func(_ string, differs bool) bool { return !differs })
	return slices.Sorted(maps.Keys(names))
}

// Redacted stands for a secret in documents that are shown. Applied, it keeps the secret that is in force.
const Redacted = "<redacted>"

// describe writes what layers say together as a YAML document, each entry with a comment that says where it is from.
func describe(s *Snapshot) (string, error) {
	f, origins := merged(s.layers)
	defaults := s.fallback.Limits
	f.Limits = writtenLimits(&defaults)
	f.StreamLabels = s.fallback.StreamLabels
	f.TrustedHeader = &s.fallback.TrustedHeader
	f.Retention = writtenRetention(s.fallback.Retention)
	if s.rollups != nil {
		f.Rollups = writtenRollups(s.rollups)
	}
	f.Metrics = writtenMetrics(s.fallback.Metrics)
	f.APIKeys = nil
	for i := range f.StorageProfiles {
		if f.StorageProfiles[i].SecretKey != "" {
			f.StorageProfiles[i].SecretKey = Redacted
		}
	}
	var node yaml.Node
	if err := node.Encode(f); err != nil {
		return "", fmt.Errorf("write configuration as YAML: %w", err)
	}
	comment(&node, "organizations", kindOrganization, origins)
	comment(&node, "storage_profiles", kindProfile, origins)
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(&node); err != nil {
		return "", fmt.Errorf("write configuration as YAML: %w", err)
	}
	return out.String(), nil
}

// merged lays layers over one another; origins says which of them each item is from.
func merged(layers []layer) (f form, origins map[string]string) {
	origins = map[string]string{}
	for _, l := range layers {
		f.Prices = mergePrices(f.Prices, l.form.Prices)
		for _, organization := range l.form.Organizations {
			f.Organizations = put(f.Organizations, organization, func(o organizationForm) string { return o.ID })
			origins[kindOrganization+organization.ID] = l.name
		}
		for _, profile := range l.form.StorageProfiles {
			f.StorageProfiles = put(f.StorageProfiles, profile, func(p profileForm) string { return p.Name })
			origins[kindProfile+profile.Name] = l.name
		}
	}
	return f, origins
}

func mergePrices(under, over pricesForm) pricesForm {
	for i := range reflect.TypeFor[pricesForm]().NumField() {
		if field := reflect.ValueOf(over).Field(i); !field.IsNil() {
			reflect.ValueOf(&under).Elem().Field(i).Set(field)
		}
	}
	return under
}

func comment(root *yaml.Node, key, kind string, origins map[string]string) {
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value != key {
			continue
		}
		for _, entry := range root.Content[i+1].Content {
			entry.HeadComment = "from " + origins[kind+entry.Content[1].Value]
		}
	}
}
