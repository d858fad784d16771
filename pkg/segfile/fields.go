// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/lakerunner/lakerunner/pkg/columns"
)

// FieldAction is what a field rule does to a field.
type FieldAction uint8

// The actions.
const (
	FieldDrop FieldAction = iota // the field is gone
	FieldHash                    // its value becomes the hexadecimal HMAC-SHA-256 of its text, the first 16 bytes
	FieldMask                    // its value becomes columns.Masked
)

// The prefixes and names of fields that are not log attributes.
const (
	fieldResource = "resource."
	fieldScope    = "scope."
	fieldBody     = "body"
)

// FieldRule changes a field in all rows: a log attribute, a resource or scope attribute (Name with the prefix "resource." or "scope."), or "body". It
// reaches all kinds of value of an attribute name. Dropping the body leaves an empty one.
type FieldRule struct {
	Name   string
	Action FieldAction
	Key    []byte // of FieldHash
}

// value is what a value becomes under a rule that does not drop it.
func (f *FieldRule) value(v columns.Value) columns.Value {
	if f.Action == FieldMask {
		return columns.Value{Str: columns.Masked}
	}
	mac := hmac.New(sha256.New, f.Key)
	mac.Write([]byte(v.Text()))
	return columns.Value{Str: hex.EncodeToString(mac.Sum(nil)[:16])}
}

// apply changes attributes, which it reorders by name and kind, and reports whether it did. Where a name has values of several kinds the first kind's
// is left.
func (f *FieldRule) apply(attributes []columns.Attribute, name string) ([]columns.Attribute, bool) {
	if !slices.ContainsFunc(attributes, func(a columns.Attribute) bool { return a.Name == name }) {
		return attributes, false
	}
	slices.SortStableFunc(attributes, func(a, b columns.Attribute) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Value.Kind, b.Value.Kind))
	})
	kept, done := attributes[:0], false
	for _, a := range attributes {
		if a.Name != name {
			kept = append(kept, a)
			continue
		}
		if f.Action != FieldDrop && !done {
			kept = append(kept, columns.Attribute{Name: name, Value: f.value(a.Value)})
		}
		done = true
	}
	return kept, true
}

// changeOrigin applies the rules for resource and scope attributes.
func changeOrigin(o columns.Origin, rules []FieldRule) columns.Origin {
	for i := range rules {
		f := &rules[i]
		if name, ok := strings.CutPrefix(f.Name, fieldResource); ok {
			o.Resource, _ = f.apply(slices.Clone(o.Resource), name)
		} else if name, ok := strings.CutPrefix(f.Name, fieldScope); ok {
			o.Scope, _ = f.apply(slices.Clone(o.Scope), name)
		}
	}
	return o
}

// changeBody returns what the rules make of a body.
func changeBody(body string, kind columns.ValueKind, rules []FieldRule) (string, columns.ValueKind) {
	for i := range rules {
		f := &rules[i]
		switch {
		case f.Name != fieldBody:
		case f.Action == FieldDrop:
			body, kind = "", columns.KindString
		default:
			body, kind = f.value(columns.Value{Kind: columns.KindString, Str: body}).Str, columns.KindString
		}
	}
	return body, kind
}

// ofOrigin reports whether the rule is for attributes of resources or scopes.
func (f *FieldRule) ofOrigin() bool {
	return strings.HasPrefix(f.Name, fieldResource) || strings.HasPrefix(f.Name, fieldScope)
}

// ofAttribute reports whether the rule is for log attributes.
func (f *FieldRule) ofAttribute() bool { return f.Name != fieldBody && !f.ofOrigin() }

// changeAttributes applies the rules for log attributes.
func changeAttributes(attributes []columns.Attribute, rules []FieldRule) []columns.Attribute {
	for i := range rules {
		if f := &rules[i]; f.ofAttribute() {
			attributes, _ = f.apply(attributes, f.Name)
		}
	}
	return attributes
}
