// SPDX-License-Identifier: AGPL-3.0-only

package selector

import (
	"encoding/binary"
	"strings"

	"github.com/lakerunner/lakerunner/pkg/columns"
)

// appendLabels writes labels so that equal bytes are equal labels.
func appendLabels(b []byte, all []columns.Label) []byte {
	b = binary.AppendUvarint(b, uint64(len(all)))
	for i := range all {
		b = appendText(appendText(b, all[i].Name), all[i].Value)
	}
	return b
}

// appendOrigin does that with what structured metadata shows of an origin.
func appendOrigin(b []byte, o *columns.Origin) []byte {
	b = appendText(appendText(b, o.ScopeName), o.ScopeVersion)
	return appendAttributes(appendAttributes(b, o.Resource), o.Scope)
}

func appendAttributes(b []byte, all []columns.Attribute) []byte {
	b = binary.AppendUvarint(b, uint64(len(all)))
	for i := range all {
		a := &all[i]
		b = appendText(b, a.Name)
		b = append(b, byte(a.Value.Kind))
		b = binary.LittleEndian.AppendUint64(b, a.Value.Num)
		b = appendText(b, a.Value.Str)
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func cloneLabels(all []columns.Label) []columns.Label {
	cloned := make([]columns.Label, len(all))
	for i := range all {
		cloned[i] = columns.Label{Name: strings.Clone(all[i].Name), Value: strings.Clone(all[i].Value)}
	}
	return cloned
}

// cloneOrigin copies what structured metadata shows of an origin.
func cloneOrigin(o *columns.Origin) columns.Origin {
	return columns.Origin{
		Resource: cloneAttributes(o.Resource), Scope: cloneAttributes(o.Scope),
		ScopeName: strings.Clone(o.ScopeName), ScopeVersion: strings.Clone(o.ScopeVersion),
	}
}

func cloneAttributes(all []columns.Attribute) []columns.Attribute {
	cloned := make([]columns.Attribute, len(all))
	for i := range all {
		a := all[i]
		a.Name, a.Value.Str = strings.Clone(a.Name), strings.Clone(a.Value.Str)
		cloned[i] = a
	}
	return cloned
}
