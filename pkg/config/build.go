// SPDX-License-Identifier: AGPL-3.0-only

package config

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/lakerunner/lakerunner/pkg/internal/strictyaml"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// layer is one source of configuration. A later layer replaces what an earlier one says of the same organization, profile or key.
type layer struct {
	name string // for people: a file, "the environment", "configdb"
	form form
}

// build merges layers, in rising precedence, into a snapshot. Environment resolves references to secrets, and fills in how to reach
// buckets where profiles do not say.
func build(layers []layer, environment map[string]string) (*Snapshot, error) {
	b := builder{
		environment:   environment,
		limits:        DefaultLimits(),
		streamLabels:  DefaultStreamLabels(),
		rollups:       DefaultRollups(),
		metrics:       DefaultMetrics(),
		organizations: map[string]organizationForm{},
		snapshot: &Snapshot{
			organizations: map[lake.Organization]*Organization{},
			buckets:       map[string][]*Profile{},
			keys:          newKeyring(),
			layers:        layers,
		},
	}
	for _, l := range layers {
		b.merge(l.form)
	}
	b.finish()
	if len(b.problems) > 0 {
		return nil, b.problems
	}
	return b.snapshot, nil
}

type builder struct {
	environment   map[string]string
	limits        Limits
	prices        []pricesForm
	streamLabels  []string
	trusted       bool
	retention     []RetentionPolicy
	rollups       []RollupPolicy
	metrics       Metrics
	rollupsPos    *strictyaml.Pos // where the tiers are written; nil: nowhere
	organizations map[string]organizationForm
	profiles      []profileForm
	keys          []keyForm
	snapshot      *Snapshot
	problems      strictyaml.Problems
}

func (b *builder) merge(f form) {
	b.limits = f.Limits.over(b.limits)
	b.prices = append(b.prices, f.Prices)
	if f.StreamLabels != nil {
		b.streamLabels = f.StreamLabels
	}
	replace(&b.trusted, f.TrustedHeader)
	if f.Retention != nil {
		b.retention = policies(f.Retention)
	}
	if f.Rollups != nil {
		b.rollups, b.rollupsPos = rollups(f.Rollups), &f.Pos
	}
	b.metrics = f.Metrics.over(b.metrics)
	for _, organization := range f.Organizations {
		b.organizations[organization.ID] = organization
	}
	for _, profile := range f.StorageProfiles {
		b.profiles = put(b.profiles, profile, func(p profileForm) string { return p.Name })
	}
	for _, key := range f.APIKeys {
		b.keys = put(b.keys, key, func(k keyForm) string { return k.ID })
	}
}

// put replaces the item of the same name, or appends.
func put[T any](items []T, item T, name func(T) string) []T {
	i := slices.IndexFunc(items, func(other T) bool { return name(other) == name(item) })
	if i < 0 {
		return append(items, item)
	}
	items[i] = item
	return items
}

func (b *builder) finish() {
	b.snapshot.fallback = Organization{
		Limits: b.limits, StreamLabels: b.streamLabels, TrustedHeader: b.trusted, Retention: b.retention, Rollups: b.rollups, Metrics: b.metrics,
	}
	if b.rollupsPos != nil {
		b.snapshot.rollups = b.rollups
	}
	b.inTime(&b.snapshot.fallback, b.rollupsPos)
	for _, f := range b.organizations {
		b.organization(f)
	}
	for i := range b.profiles {
		b.profile(&b.profiles[i])
	}
	for _, profiles := range b.snapshot.buckets {
		slices.SortStableFunc(profiles, morePrecise)
	}
	for _, f := range b.organizations {
		b.fieldsAreNoLabels(f)
	}
	for i := range b.keys {
		b.key(&b.keys[i])
	}
}

// morePrecise orders profiles of a bucket: most literal characters first, then those with placeholders before the one without a prefix.
func morePrecise(a, b *Profile) int {
	if c := cmp.Compare(b.pattern.literal, a.pattern.literal); c != 0 {
		return c
	}
	return cmp.Compare(len(b.Prefix), len(a.Prefix))
}

func (b *builder) organization(f organizationForm) {
	organization := b.snapshot.fallback
	organization.ID, organization.Name = lake.Organization(f.ID), f.Name
	organization.Limits = f.Limits.over(b.limits)
	if f.StreamLabels != nil {
		organization.StreamLabels = f.StreamLabels
	}
	replace(&organization.TrustedHeader, f.TrustedHeader)
	if f.Retention != nil {
		organization.Retention = policies(f.Retention)
	}
	var written *strictyaml.Pos
	if f.Rollups != nil {
		organization.Rollups, written = rollups(f.Rollups), &f.Pos
	}
	b.inTime(&organization, written)
	organization.Metrics = f.Metrics.over(b.metrics)
	organization.Fields = b.fields(f)
	b.snapshot.organizations[organization.ID] = &organization
}

func (b *builder) profile(f *profileForm) {
	b.declared(f.Pos, f.Organization, fmt.Sprintf("storage profile %q", f.Name))
	compiled, err := compilePattern(f.Prefix)
	signal, signalErr := lake.ParseSignal(f.Signal)
	if err != nil || signalErr != nil {
		b.fail(f.Pos.Problem("prefix", "storage profile %q: %v", f.Name, cmp.Or(err, signalErr)))
		return
	}
	p := &Profile{
		Name:         f.Name,
		Location:     b.location(f),
		Prefix:       f.Prefix,
		Organization: lake.Organization(f.Organization),
		Collector:    f.Collector,
		Signal:       signal,
		OnRewrite:    cmp.Or(OnRewrite(f.OnRewrite), Append),
		StreamLabels: f.StreamLabels,
		Raw:          RawPolicy{Action: cmp.Or(RawAction(f.Raw.Action), RawKeep), After: f.Raw.After, Class: f.Raw.Class},
		RowIdentity:  f.RowIdentity,
		pattern:      compiled,
	}
	p.Prices = DefaultPrices(p.Location.Provider)
	for _, outer := range b.prices {
		p.Prices = outer.over(p.Prices)
	}
	p.Prices = f.Prices.over(p.Prices)
	p.Location.Prices = p.Prices.Requests
	b.fits(f, p)
	b.snapshot.profiles = append(b.snapshot.profiles, p)
	b.snapshot.buckets[f.Bucket] = append(b.snapshot.buckets[f.Bucket], p)
}

// fits checks a profile against the others of its bucket. One that says nothing of how to reach it is reached as the first is.
func (b *builder) fits(f *profileForm, p *Profile) {
	others := b.snapshot.buckets[f.Bucket]
	for _, other := range others {
		if other.Prefix == p.Prefix {
			b.fail(f.Pos.Problem("prefix", "storage profiles %q and %q both claim prefix %q of bucket %q; give them different prefixes", other.Name, f.Name, f.Prefix, f.Bucket))
		}
	}
	if len(others) == 0 {
		return
	}
	first := others[0]
	if !f.saysLocation() {
		p.Location = first.Location
	}
	if LocationKey(p.Location) != LocationKey(first.Location) {
		b.fail(f.Pos.Problem("bucket", "storage profiles %q and %q reach bucket %q differently; leave provider, endpoint, region, role, keys, path_style and directory out of the second", first.Name, f.Name, f.Bucket))
	}
}

func (f *profileForm) saysLocation() bool {
	return f.Provider+f.Endpoint+f.Region+f.Role+f.AccessKey+f.AccessKeyEnv+f.SecretKey+f.SecretKeyEnv+f.Directory != "" || f.PathStyle != nil
}

// LocationKey is the same for two locations exactly if they reach the same bucket in the same way.
func LocationKey(l objects.Location) string {
	return strings.Join([]string{
		l.Provider, l.Name, l.Endpoint, l.Region, l.AccessKey, l.SecretKey, l.RoleARN, fmt.Sprint(l.PathStyle), l.Directory,
	}, "\x00")
}

func (b *builder) location(f *profileForm) objects.Location {
	l := objects.Location{
		Provider: f.Provider, Name: f.Bucket, Endpoint: f.Endpoint, Region: f.Region, RoleARN: f.Role, Directory: f.Directory,
		AccessKey: b.reference(f.Pos, "access_key_env", f.AccessKey, f.AccessKeyEnv),
		SecretKey: b.reference(f.Pos, "secret_key_env", f.SecretKey, f.SecretKeyEnv),
	}
	l = defaultLocation(b.environment).fill(l)
	l.PathStyle = pathStyle(l.Endpoint)
	replace(&l.PathStyle, f.PathStyle)
	return l
}

// pathStyle is the default: servers of one's own seldom have a host name for each bucket, the clouds have.
func pathStyle(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if endpoint == "" || err != nil {
		return false
	}
	return !strings.HasSuffix(u.Hostname(), ".amazonaws.com") && !strings.HasSuffix(u.Hostname(), ".googleapis.com")
}

// reference returns a secret that was written, or the environment variable that was named for it.
func (b *builder) reference(pos strictyaml.Pos, field, written, name string) string {
	if name == "" {
		return written
	}
	value := b.environment[name]
	if value == "" {
		b.fail(pos.Problem(field, "environment variable %s is not set; set it, or name another", name))
	}
	return value
}

func (b *builder) key(f *keyForm) {
	b.declared(f.Pos, f.Organization, fmt.Sprintf("API key %q", f.ID))
	hash, ok := b.hash(f)
	scopes, err := f.scopes()
	if !ok || err != nil {
		return
	}
	identity := Identity{KeyID: f.ID, Organization: lake.Organization(f.Organization), Scopes: scopes}
	if !b.snapshot.keys.add(hash, identity) {
		b.fail(f.Pos.Problem("id", "API key %q has the secret of another key; make a new one", f.ID))
	}
}

func (b *builder) hash(f *keyForm) ([hashSize]byte, bool) {
	if f.SHA256 != "" {
		decoded, err := hex.DecodeString(f.SHA256)
		if err != nil || len(decoded) != hashSize {
			return [hashSize]byte{}, false
		}
		return [hashSize]byte(decoded), true
	}
	secret := b.reference(f.Pos, "secret_env", f.secret, f.SecretEnv)
	if secret == "" {
		return [hashSize]byte{}, false
	}
	if len(secret) < MinSecret {
		b.fail(f.Pos.Problem("secret_env", "the secret of API key %q has fewer than %d characters; make one with: openssl rand -hex 32", f.ID, MinSecret))
	}
	return Hash(secret), true
}

// declared checks that an organization that is named exists.
func (b *builder) declared(pos strictyaml.Pos, organization, who string) {
	if organization == "" || len(b.organizations) == 0 {
		return
	}
	if _, ok := b.organizations[organization]; ok {
		return
	}
	ids := make([]string, 0, len(b.organizations))
	for id := range b.organizations {
		ids = append(ids, id)
	}
	b.fail(pos.Problem("organization", "%s names organization %q, which is not declared; %s", who, organization, strictyaml.Suggest(organization, ids)))
}

func (b *builder) fail(problem strictyaml.Problem) { b.problems = append(b.problems, problem) }
