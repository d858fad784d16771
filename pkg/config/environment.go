// SPDX-License-Identifier: AGPL-3.0-only

package config

import (
	"cmp"

	"github.com/lakerunner/lakerunner/pkg/internal/strictyaml"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// Environment variables that are configuration by themselves.
const (
	EnvAdminKey     = "LAKERUNNER_ADMIN_KEY"    // the secret of an admin key: the way in before there are others
	EnvOrganization = "LAKERUNNER_ORGANIZATION" // whose objects those of S3_BUCKET are, where their keys do not say
	EnvBucket       = "S3_BUCKET"
	EnvProvider     = "S3_PROVIDER"
	EnvEndpoint     = "S3_ENDPOINT"
	EnvRegion       = "AWS_REGION"
)

// EnvironmentName names what the environment alone declares: the storage profile of S3_BUCKET and the key of LAKERUNNER_ADMIN_KEY.
const EnvironmentName = "environment"

// environmentLayer is what plain environment variables say: a storage profile for S3_BUCKET and an admin key. A storage profile
// of a file or of configdb that claims the whole of that bucket replaces the first; so later layers are passed in.
func environmentLayer(environment map[string]string, later []layer) (layer, error) {
	pos := strictyaml.Pos{File: "environment variable"}
	l := layer{name: "the environment", form: form{Pos: pos}}
	if bucket := environment[EnvBucket]; bucket != "" && !claimed(bucket, later) {
		l.form.StorageProfiles = []profileForm{{
			Name: EnvironmentName, Bucket: bucket, Organization: environment[EnvOrganization], Pos: strictyaml.Pos{File: "environment variable " + EnvBucket},
		}}
	}
	if secret := environment[EnvAdminKey]; secret != "" {
		l.form.APIKeys = []keyForm{{
			ID: EnvironmentName, Scopes: []string{string(ScopeAdmin)}, secret: secret, Pos: strictyaml.Pos{File: "environment variable " + EnvAdminKey},
		}}
	}
	if problems := l.form.problems(); len(problems) > 0 {
		return layer{}, problems
	}
	switch environment[EnvProvider] {
	case "", objects.ProviderAWS, objects.ProviderGCP:
		return l, nil
	}
	return layer{}, strictyaml.Problems{{
		File: "environment variable " + EnvProvider, Text: "want aws (also for every S3-compatible server, with S3_ENDPOINT) or gcp",
	}}
}

// claimed reports whether a layer has a profile for the whole bucket.
func claimed(bucket string, layers []layer) bool {
	for _, l := range layers {
		for _, profile := range l.form.StorageProfiles {
			if profile.Bucket == bucket && profile.Prefix == "" {
				return true
			}
		}
	}
	return false
}

// locationDefaults are how the environment says that buckets are reached.
type locationDefaults objects.Location

func defaultLocation(environment map[string]string) locationDefaults {
	d := locationDefaults{
		Provider: cmp.Or(environment[EnvProvider], objects.ProviderAWS),
		Endpoint: environment[EnvEndpoint],
		Region:   environment[EnvRegion],
	}
	// Keys that came with a session token are temporary: the SDK's own chain takes all three.
	if environment["AWS_SESSION_TOKEN"] == "" {
		d.AccessKey = cmp.Or(environment["AWS_ACCESS_KEY_ID"], environment["AWS_ACCESS_KEY"])
		d.SecretKey = cmp.Or(environment["AWS_SECRET_ACCESS_KEY"], environment["AWS_SECRET_KEY"])
	}
	return d
}

// fill completes a location of the environment's provider by what the environment says; of another provider it says nothing.
func (d locationDefaults) fill(l objects.Location) objects.Location {
	l.Provider = cmp.Or(l.Provider, d.Provider)
	if l.Provider != d.Provider {
		return l
	}
	l.Endpoint = cmp.Or(l.Endpoint, d.Endpoint)
	l.Region = cmp.Or(l.Region, d.Region)
	if l.AccessKey == "" {
		l.AccessKey, l.SecretKey = d.AccessKey, d.SecretKey
	}
	return l
}
