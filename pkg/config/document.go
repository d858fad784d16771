// SPDX-License-Identifier: AGPL-3.0-only

package config

import (
	"encoding/hex"
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/internal/strictyaml"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// form is the configuration as written: one YAML document, or what a layer that is no document says in its terms.
type form struct {
	Organizations   []organizationForm  `yaml:"organizations,omitempty"`
	StorageProfiles []profileForm       `yaml:"storage_profiles,omitempty"`
	APIKeys         []keyForm           `yaml:"api_keys,omitempty"`
	Limits          limitsForm          `yaml:"limits,omitempty"`
	Prices          pricesForm          `yaml:"prices,omitempty"`
	StreamLabels    list[string]        `yaml:"stream_labels,omitempty"`
	TrustedHeader   *bool               `yaml:"trusted_header,omitempty"`
	Retention       list[retentionForm] `yaml:"retention,omitempty"`
	Rollups         list[rollupForm]    `yaml:"rollups,omitempty"`
	Metrics         metricsForm         `yaml:"metrics,omitempty"`

	Pos strictyaml.Pos `yaml:"-"`
}

// list is a list as written: one that is there and empty differs from one that is left out.
type list[T any] []T

// IsZero reports whether the list was left out.
func (l list[T]) IsZero() bool { return l == nil }

type organizationForm struct {
	ID            string       `yaml:"id"`
	Name          string       `yaml:"name,omitempty"`
	Limits        limitsForm   `yaml:"limits,omitempty"`
	StreamLabels  list[string] `yaml:"stream_labels,omitempty"`
	TrustedHeader *bool        `yaml:"trusted_header,omitempty"`

	Retention   list[retentionForm] `yaml:"retention,omitempty"`
	Rollups     list[rollupForm]    `yaml:"rollups,omitempty"`
	Metrics     metricsForm         `yaml:"metrics,omitempty"`
	Fields      []fieldForm         `yaml:"fields,omitempty"`
	FieldKeyEnv string              `yaml:"field_key_env,omitempty"`

	Pos strictyaml.Pos `yaml:"-"`
}

type profileForm struct {
	Name         string       `yaml:"name"`
	Bucket       string       `yaml:"bucket"`
	Prefix       string       `yaml:"prefix,omitempty"`
	Organization string       `yaml:"organization,omitempty"`
	Collector    string       `yaml:"collector,omitempty"`
	Signal       string       `yaml:"signal,omitempty"`
	Provider     string       `yaml:"provider,omitempty"`
	Endpoint     string       `yaml:"endpoint,omitempty"`
	Region       string       `yaml:"region,omitempty"`
	Role         string       `yaml:"role,omitempty"`
	AccessKey    string       `yaml:"access_key,omitempty"`
	AccessKeyEnv string       `yaml:"access_key_env,omitempty"`
	SecretKey    string       `yaml:"secret_key,omitempty"`
	SecretKeyEnv string       `yaml:"secret_key_env,omitempty"`
	PathStyle    *bool        `yaml:"path_style,omitempty"`
	Directory    string       `yaml:"directory,omitempty"`
	OnRewrite    string       `yaml:"on_rewrite,omitempty"`
	StreamLabels list[string] `yaml:"stream_labels,omitempty"`
	Prices       pricesForm   `yaml:"prices,omitempty"`
	Raw          rawForm      `yaml:"raw,omitempty"`
	RowIdentity  string       `yaml:"row_identity,omitempty"`

	Pos strictyaml.Pos `yaml:"-"`
}

type keyForm struct {
	ID           string   `yaml:"id"`
	Organization string   `yaml:"organization,omitempty"`
	Scopes       []string `yaml:"scopes"`
	SHA256       string   `yaml:"sha256,omitempty"`
	SecretEnv    string   `yaml:"secret_env,omitempty"`
	Description  string   `yaml:"description,omitempty"`

	secret    string    // known only of keys that the environment gives
	createdAt time.Time // known only of keys that configdb gives

	Pos strictyaml.Pos `yaml:"-"`
}

// Keys are the top-level keys of a configuration document: those that this package reads.
func Keys() []string {
	return []string{"organizations", "storage_profiles", "api_keys", "limits", "prices", "stream_labels", "trusted_header", "retention", "rollups", "metrics"}
}

// parseForm reads a document and checks what can be checked without the other layers. Keys named in others are somebody else's.
func parseForm(file string, data []byte, others []string) (form, error) {
	document, err := strictyaml.Parse(file, data)
	if err != nil {
		return form{}, err
	}
	var f form
	if err := document.Decode(&f, others...); err != nil {
		return form{}, err
	}
	if problems := f.problems(); len(problems) > 0 {
		return form{}, problems
	}
	return f, nil
}

// problems lists what is wrong with the layer by itself.
func (f *form) problems() strictyaml.Problems {
	var out strictyaml.Problems
	if problem := f.Limits.problem(); problem != "" {
		out = append(out, f.Pos.Problem("limits", "%s", problem))
	}
	if name := f.Prices.negative(); name != "" {
		out = append(out, f.Pos.Problem("prices", "prices.%s is negative; give US dollars", name))
	}
	fail := func(field, format string, args ...any) { out = append(out, f.Pos.Problem(field, format, args...)) }
	retentionProblems(f.Retention, fail)
	rollupProblems(f.Rollups, fail)
	f.Metrics.problems(fail)
	seen := map[string]bool{}
	for i := range f.Organizations {
		out = append(out, f.Organizations[i].problems(seen)...)
	}
	seen = map[string]bool{}
	for i := range f.StorageProfiles {
		out = append(out, f.StorageProfiles[i].problems(seen)...)
	}
	seen = map[string]bool{}
	for i := range f.APIKeys {
		out = append(out, f.APIKeys[i].problems(seen)...)
	}
	return out
}

func (f *organizationForm) problems(seen map[string]bool) (out strictyaml.Problems) {
	if err := lake.Organization(f.ID).Valid(); err != nil {
		out = append(out, f.Pos.Problem("id", "%v", err))
	}
	if seen[f.ID] {
		out = append(out, f.Pos.Problem("id", "organization %q is declared twice; merge the two", f.ID))
	}
	seen[f.ID] = true
	if problem := f.Limits.problem(); problem != "" {
		out = append(out, f.Pos.Problem("limits", "%s", problem))
	}
	fail := func(field, format string, args ...any) { out = append(out, f.Pos.Problem(field, format, args...)) }
	retentionProblems(f.Retention, fail)
	rollupProblems(f.Rollups, fail)
	f.Metrics.problems(fail)
	fieldProblems(f.Fields, f.FieldKeyEnv, fail)
	return out
}

func (f *profileForm) problems(seen map[string]bool) (out strictyaml.Problems) {
	fail := func(field, format string, args ...any) { out = append(out, f.Pos.Problem(field, format, args...)) }
	if f.Name == "" {
		fail("name", "a storage profile has no name; give it one that is unique")
	}
	if seen[f.Name] {
		fail("name", "storage profile %q is declared twice; rename one", f.Name)
	}
	seen[f.Name] = true
	if f.Bucket == "" {
		fail("bucket", "storage profile %q names no bucket; add `bucket:`", f.Name)
	}
	if _, err := compilePattern(f.Prefix); err != nil {
		fail("prefix", "prefix %q: %v", f.Prefix, err)
	}
	if lake.OwnKey(f.Prefix) {
		fail("prefix", "prefix %q: %s is where LakeRunner keeps its own files; choose another", f.Prefix, lake.Prefix)
	}
	if f.Organization != "" {
		if err := lake.Organization(f.Organization).Valid(); err != nil {
			fail("organization", "%v", err)
		}
	}
	if _, err := lake.ParseSignal(f.Signal); err != nil {
		fail("signal", "%v", err)
	}
	if !slices.Contains([]string{"", string(Append), string(Replace)}, f.OnRewrite) {
		fail("on_rewrite", "on_rewrite is %q; want append or replace", f.OnRewrite)
	}
	if name := f.Prices.negative(); name != "" {
		fail("prices", "prices.%s is negative; give US dollars", name)
	}
	f.Raw.problems(fail)
	f.locationProblems(fail)
	return out
}

func (f *profileForm) locationProblems(fail func(field, format string, args ...any)) {
	known := []string{objects.ProviderAWS, objects.ProviderGCP, objects.ProviderFile}
	if f.Provider != "" && !slices.Contains(known, f.Provider) {
		fail("provider", "provider is %q; want aws (also for every S3-compatible server, with an endpoint), gcp or file", f.Provider)
	}
	if f.Provider == objects.ProviderFile && f.Directory == "" {
		fail("directory", "provider file needs `directory:`")
	}
	if f.Directory != "" && f.Provider != objects.ProviderFile {
		fail("directory", "directory is only for `provider: file`")
	}
	if f.AccessKey != "" && f.AccessKeyEnv != "" {
		fail("access_key_env", "access_key and access_key_env are both given; keep one")
	}
	if f.SecretKey != "" && f.SecretKeyEnv != "" {
		fail("secret_key_env", "secret_key and secret_key_env are both given; keep one")
	}
	if (f.AccessKey+f.AccessKeyEnv == "") != (f.SecretKey+f.SecretKeyEnv == "") {
		fail("access_key", "an access key and a secret key belong together; give both, or neither to use the environment or a role")
	}
}

func (f *keyForm) problems(seen map[string]bool) (out strictyaml.Problems) {
	fail := func(field, format string, args ...any) { out = append(out, f.Pos.Problem(field, format, args...)) }
	if f.ID == "" {
		fail("id", "an API key has no id; give it one that is unique and may be seen in logs")
	}
	if seen[f.ID] {
		fail("id", "API key %q is declared twice; rename one", f.ID)
	}
	seen[f.ID] = true
	if _, err := f.scopes(); err != nil {
		fail("scopes", "API key %q: %v", f.ID, err)
	}
	if len(f.Scopes) == 0 {
		fail("scopes", "API key %q has no scopes; give one or more of query, ingest and admin", f.ID)
	}
	if f.Organization == "" && !slices.Contains(f.Scopes, string(ScopeAdmin)) {
		fail("organization", "API key %q names no organization; only admin keys may do without", f.ID)
	}
	if f.Organization != "" {
		if err := lake.Organization(f.Organization).Valid(); err != nil {
			fail("organization", "%v", err)
		}
	}
	f.secretProblems(fail)
	return out
}

func (f *keyForm) secretProblems(fail func(field, format string, args ...any)) {
	if f.secret != "" {
		return
	}
	if (f.SHA256 == "") == (f.SecretEnv == "") {
		fail("sha256", "API key %q: give either sha256 (the hash of the secret in hexadecimal) or secret_env (the environment variable that holds the secret)", f.ID)
		return
	}
	if f.SHA256 == "" {
		return
	}
	if hash, err := hex.DecodeString(f.SHA256); err != nil || len(hash) != hashSize {
		fail("sha256", "API key %q: sha256 is not 64 hexadecimal digits; make them with: printf %%s \"$SECRET\" | sha256sum", f.ID)
	}
}

func (f *keyForm) scopes() ([]Scope, error) {
	out := make([]Scope, 0, len(f.Scopes))
	for _, name := range f.Scopes {
		scope, err := ParseScope(name)
		if err != nil {
			return nil, err
		}
		out = append(out, scope)
	}
	return out, nil
}
