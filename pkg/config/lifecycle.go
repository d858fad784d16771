// SPDX-License-Identifier: AGPL-3.0-only

package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lakerunner/lakerunner/pkg/internal/strictyaml"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// RetentionPolicy says how long rows are kept. Of an organization's policies the first that fits a row decides.
type RetentionPolicy struct {
	Signal lake.Signal
	// Selector is a LogQL stream selector that limits the policy to the streams it lets through. Empty: all rows.
	Selector string
	// Resolution limits the policy to rollups of that interval, or with Raw to rows as they came. Zero: both.
	Resolution time.Duration
	Keep       time.Duration
}

// Raw is the resolution of policies for rows as they came.
const Raw time.Duration = -1

// Covers reports whether the policy is for rows of a resolution, which is zero for rows as they came. Streams are no matter of rollups,
// so a policy with a selector is not for them.
func (p RetentionPolicy) Covers(resolution time.Duration) bool {
	if resolution > 0 {
		return p.Selector == "" && (p.Resolution == 0 || p.Resolution == resolution)
	}
	return p.Resolution <= 0
}

// RetentionRules names each of the policies of one signal, in their order, for the rules of segments that compaction applied them to: rows
// that they let go are not in those. A name stands for the policy and all that come before it, since these decide which rows are its own:
// when one of them changes, it has another name.
func RetentionRules(policies []RetentionPolicy) []string {
	names := make([]string, len(policies))
	var before strings.Builder
	for i, p := range policies {
		fmt.Fprintf(&before, "%q %d %d\n", p.Selector, p.Resolution, p.Keep)
		sum := sha256.Sum256([]byte(before.String()))
		names[i] = "expire:" + hex.EncodeToString(sum[:6])
	}
	return names
}

// FieldAction is what becomes of a field.
type FieldAction string

// What can become of a field.
const (
	FieldDrop FieldAction = "drop" // it is left out
	FieldHash FieldAction = "hash" // its value becomes a keyed hash: equal values stay equal
	FieldMask FieldAction = "mask" // its value becomes ***
)

// FieldRule changes one field of all rows that are older than After.
type FieldRule struct {
	// Name is a log attribute, "body", or with the prefix "resource." or "scope." an attribute of these.
	Name   string
	Signal lake.Signal
	Action FieldAction
	After  time.Duration
	// Key is the key of FieldHash; nil otherwise.
	Key []byte
}

// ID names the rule in segments that it was applied to.
func (r FieldRule) ID() string { return string(r.Action) + ":" + r.Name }

// RawAction is what becomes of source objects.
type RawAction string

// What can become of a source object, once its receipt is done.
const (
	RawKeep   RawAction = "keep"
	RawExpire RawAction = "expire" // it is deleted
	RawMove   RawAction = "move"   // it is copied onto itself in another storage class
)

// RawPolicy says what becomes of source objects that were written longer than After ago.
type RawPolicy struct {
	Action RawAction
	After  time.Duration
	Class  string // of RawMove, for example GLACIER_IR
}

// RetentionOf returns the policies of a signal's rows as they came, in their order. None: its rows are kept for ever.
func (o *Organization) RetentionOf(signal lake.Signal) []RetentionPolicy {
	var out []RetentionPolicy
	for _, policy := range o.Retention {
		if policy.Signal == signal && policy.Covers(0) {
			out = append(out, policy)
		}
	}
	return out
}

// TierRetention returns how long after its rows' time a segment of a resolution is kept for certain: as long as some policy may keep one
// of them. Zero: for ever.
func (o *Organization) TierRetention(signal lake.Signal, resolution time.Duration) time.Duration {
	longest := time.Duration(0)
	for _, policy := range o.Retention {
		if policy.Signal != signal || !policy.Covers(resolution) {
			continue
		}
		longest = max(longest, policy.Keep)
		if policy.Selector == "" {
			return longest
		}
	}
	return 0
}

// RawRetention is the TierRetention of rows as they came. What is older has no rows to be merged with.
func (o *Organization) RawRetention(signal lake.Signal) time.Duration {
	return o.TierRetention(signal, 0)
}

// FieldsOf returns the field rules of a signal.
func (o *Organization) FieldsOf(signal lake.Signal) []FieldRule {
	var out []FieldRule
	for _, rule := range o.Fields {
		if rule.Signal == signal {
			out = append(out, rule)
		}
	}
	return out
}

// retentionForm is RetentionPolicy as written.
type retentionForm struct {
	Signal     string        `yaml:"signal"`
	Selector   string        `yaml:"selector,omitempty"`
	Resolution resolution    `yaml:"resolution,omitempty"`
	Keep       time.Duration `yaml:"keep"`
}

// resolution is an interval of rollups as written, or raw.
type resolution time.Duration

const rawName = "raw"

// UnmarshalText reads raw or a duration.
func (r *resolution) UnmarshalText(text []byte) error {
	if string(text) == rawName {
		*r = resolution(Raw)
		return nil
	}
	interval, err := strictyaml.ParseDuration(string(text))
	if err == nil && !slices.Contains(Tiers(), interval) {
		err = fmt.Errorf("%q is no resolution; want %s, %s", text, rawName, tierNames())
	}
	*r = resolution(interval)
	return err
}

// MarshalText is UnmarshalText's inverse.
func (r resolution) MarshalText() ([]byte, error) {
	if time.Duration(r) == Raw {
		return []byte(rawName), nil
	}
	return []byte(tierName(time.Duration(r))), nil
}

// fieldForm is FieldRule as written.
type fieldForm struct {
	Name   string        `yaml:"name"`
	Signal string        `yaml:"signal,omitempty"`
	Action string        `yaml:"action"`
	After  time.Duration `yaml:"after,omitempty"`
}

// rawForm is RawPolicy as written.
type rawForm struct {
	Action string        `yaml:"action,omitempty"`
	After  time.Duration `yaml:"after,omitempty"`
	Class  string        `yaml:"class,omitempty"`
}

// failure notes that a field is wrong.
type failure func(field, format string, args ...any)

func retentionProblems(policies []retentionForm, fail failure) {
	for i, p := range policies {
		signal, err := lake.ParseSignal(p.Signal)
		switch {
		case err != nil:
			fail("retention", "retention[%d]: %v", i, err)
		case signal == lake.SignalUnknown:
			fail("retention", "retention[%d] names no signal; add `signal: logs`, metrics or spans", i)
		case p.Keep <= 0:
			fail("retention", "retention[%d]: keep is %s; give how long rows are kept, for example 30d", i, p.Keep)
		case p.Selector != "" && signal != lake.SignalLogs:
			fail("retention", "retention[%d]: a selector is for logs only", i)
		case p.Resolution != 0 && signal == lake.SignalSpans:
			fail("retention", "retention[%d]: a resolution is for metrics and logs only", i)
		case p.Resolution != 0 && p.Selector != "":
			fail("retention", "retention[%d]: a selector is for rows as they came only; take resolution out", i)
		case p.Selector != "":
			if err := checkStreamSelector(p.Selector); err != nil {
				fail("retention", "retention[%d]: selector %s: %v", i, p.Selector, err)
			}
		}
	}
}

func fieldProblems(rules []fieldForm, keyEnv string, fail failure) {
	seen := map[string]bool{}
	for i, r := range rules {
		signal, err := lake.ParseSignal(r.Signal)
		id := r.Signal + ":" + r.Action + ":" + r.Name
		switch {
		case err != nil:
			fail("fields", "fields[%d]: %v", i, err)
		case signal == lake.SignalMetrics:
			fail("fields", "fields[%d]: field rules are for logs and spans", i)
		case r.Name == "" || r.Name == "resource." || r.Name == "scope.":
			fail("fields", "fields[%d] names no field; add `name:`", i)
		case !slices.Contains([]string{string(FieldDrop), string(FieldHash), string(FieldMask)}, r.Action):
			fail("fields", "fields[%d]: action is %q; want drop, hash or mask", i, r.Action)
		case r.Name == "body" && r.Action == string(FieldHash):
			fail("fields", "fields[%d]: the body can be dropped or masked, not hashed", i)
		case r.After < 0:
			fail("fields", "fields[%d]: after is negative", i)
		case r.Action == string(FieldHash) && keyEnv == "":
			fail("field_key_env", "fields[%d] hashes %s: add `field_key_env:`, the environment variable that holds the key", i, r.Name)
		case seen[id]:
			fail("fields", "fields[%d] is there twice; keep one", i)
		}
		seen[id] = true
	}
}

func (f rawForm) problems(fail failure) {
	action := RawAction(f.Action)
	switch {
	case !slices.Contains([]RawAction{"", RawKeep, RawExpire, RawMove}, action):
		fail("raw", "raw.action is %q; want keep, expire or move", f.Action)
	case f.After < 0:
		fail("raw", "raw.after is negative")
	case action == RawMove && f.Class == "":
		fail("raw", "raw.action move needs `class:`, the storage class, for example GLACIER_IR")
	case action != RawMove && f.Class != "":
		fail("raw", "raw.class is only for `action: move`")
	case (action == RawExpire || action == RawMove) && f.After == 0:
		fail("raw", "raw.action %s needs `after:`, for example 30d", f.Action)
	case (action == "" || action == RawKeep) && f.After != 0:
		fail("raw", "raw.after is only for `action: expire` and `action: move`")
	}
}

// policies translates what retentionProblems has passed.
func policies(forms []retentionForm) []RetentionPolicy {
	var out []RetentionPolicy
	for _, f := range forms {
		signal, _ := lake.ParseSignal(f.Signal)
		out = append(out, RetentionPolicy{Signal: signal, Selector: f.Selector, Resolution: time.Duration(f.Resolution), Keep: f.Keep})
	}
	return out
}

// writtenRetention is the inverse of policies.
func writtenRetention(in []RetentionPolicy) []retentionForm {
	var out []retentionForm
	for _, p := range in {
		out = append(out, retentionForm{Signal: p.Signal.String(), Selector: p.Selector, Resolution: resolution(p.Resolution), Keep: p.Keep})
	}
	return out
}

// fields translates an organization's field rules. A rule is for logs where it names no signal.
func (b *builder) fields(f organizationForm) []FieldRule {
	var out []FieldRule
	for _, form := range f.Fields {
		signal, _ := lake.ParseSignal(form.Signal)
		if signal == lake.SignalUnknown {
			signal = lake.SignalLogs
		}
		rule := FieldRule{Name: form.Name, Signal: signal, Action: FieldAction(form.Action), After: form.After}
		if rule.Action == FieldHash {
			rule.Key = []byte(b.reference(f.Pos, "field_key_env", "", f.FieldKeyEnv))
		}
		out = append(out, rule)
	}
	return out
}

// fieldsAreNoLabels checks that no field rule would change a stream label: streams are what queries and retention select by.
func (b *builder) fieldsAreNoLabels(f organizationForm) {
	for _, rule := range f.Fields {
		name, ok := strings.CutPrefix(rule.Name, "resource.")
		if ok && slices.Contains(b.labelsOf(f.ID), name) {
			b.fail(f.Pos.Problem("fields", "the field rule on %q of organization %q: it is a stream label, which cannot be changed; leave it out of stream_labels first", rule.Name, f.ID))
		}
	}
}

// labelsOf returns all names that are stream labels in some of an organization's profiles.
func (b *builder) labelsOf(id string) []string {
	labels := slices.Clone(b.snapshot.organizations[lake.Organization(id)].StreamLabels)
	for _, p := range b.profiles {
		if p.Organization == "" || p.Organization == id || strings.Contains(p.Prefix, "{organization}") {
			labels = append(labels, p.StreamLabels...)
		}
	}
	return labels
}
