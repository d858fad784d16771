// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/columns"
)

func TestColumnName(t *testing.T) {
	t.Parallel()
	for want, key := range map[string]columns.Key{
		"a_elpmasi9cg_s": {Name: "userId"},
		"a_elpmasj9cg_s": {Name: "userid"},
		"a_c4n64_i":      {Name: "a.b", Kind: columns.KindInt},
		"a_c5fm4_d":      {Name: "a_b", Kind: columns.KindDouble},
		"a_c4nm4_b":      {Name: "a/b", Kind: columns.KindBool},
		"a__y":           {Kind: columns.KindBytes},
		"a_c4_a":         {Name: "a", Kind: columns.KindArray},
		"a_oeu6tgtf_m":   {Name: "ünï", Kind: columns.KindMap},
	} {
		got := ColumnName(key.Name, key.Kind)
		if got != want {
			t.Errorf("%q: want %s, got %s", key.Name, want, got)
		}
		name, kind, err := ParseColumnName(got)
		if diff := cmp.Diff(key, columns.Key{Name: name, Kind: kind}); diff != "" || err != nil {
			t.Errorf("%s: %v %s", got, err, diff)
		}
	}
	for _, column := range []string{"", "a_", "body", "a_c4", "a_c4_", "a_c4_x", "a_C4_s", "a_!_s"} {
		if _, _, err := ParseColumnName(column); err == nil {
			t.Errorf("%q was accepted", column)
		}
	}
}

func FuzzDecodeAttributes(f *testing.F) {
	f.Add(`{"a":{"s":"x","i":-1},"b\"\u0000":{"d":"NaN:7ff0000000000002"},"c":{"d":1e+300},"y":{"y":"/wA="},"t":{"b":true}}`)
	f.Add(`{"a":{"s":"x"`)
	f.Fuzz(func(t *testing.T, text string) {
		first, err := DecodeAttributes(nil, text)
		if err != nil {
			return
		}
		encoded := []byte{'{'}
		for i, a := range first {
			if i > 0 {
				encoded = append(encoded, ',')
			}
			encoded = append(appendJSONString(encoded, a.Name), ':', '{')
			encoded = append(appendTagged(encoded, a.Value), '}')
		}
		again, err := DecodeAttributes(nil, string(append(encoded, '}')))
		if diff := cmp.Diff(first, again); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
	})
}
