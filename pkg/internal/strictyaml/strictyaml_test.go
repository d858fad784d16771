// SPDX-License-Identifier: AGPL-3.0-only

package strictyaml_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lakerunner/lakerunner/pkg/internal/strictyaml"
)

type colour string

func (c *colour) UnmarshalText(text []byte) error {
	*c = colour(strings.ToUpper(string(text)))
	return nil
}

type inner struct {
	Size    int64         `yaml:"size"`
	Wait    time.Duration `yaml:"wait"`
	Ratio   *float64      `yaml:"ratio"`
	Enabled bool          `yaml:"enabled"`

	Pos strictyaml.Pos `yaml:"-"`
}

type outer struct {
	Name   string            `yaml:"name"`
	Colour colour            `yaml:"colour"`
	Port   uint16            `yaml:"port"`
	Inner  inner             `yaml:"inner"`
	List   []inner           `yaml:"list"`
	Words  []string          `yaml:"words"`
	Map    map[string]string `yaml:"map"`
	hidden string
}

func TestDecode(t *testing.T) {
	t.Parallel()
	decode := func(t *testing.T, text string, into *outer, others ...string) error {
		t.Helper()
		document, err := strictyaml.Parse("f.yaml", []byte(text))
		if err != nil {
			return err
		}
		return document.Decode(into, others...)
	}
	ignore := cmp.Options{cmpopts.IgnoreUnexported(outer{}), cmpopts.IgnoreTypes(strictyaml.Pos{})}

	t.Run("reads every kind of field", func(t *testing.T) {
		t.Parallel()
		ratio := 0.5
		want := outer{
			Name: "007", Colour: "RED", Port: 80, Words: []string{"a", "b"}, Map: map[string]string{"x": "1"},
			Inner: inner{Size: 64 << 20, Wait: 36 * time.Hour, Ratio: &ratio, Enabled: true},
			List:  []inner{{Size: 1}, {Size: 2}},
		}
		var got outer
		err := decode(t, `
name: 007
colour: red
port: 80
inner: {size: 64MiB, wait: 1d12h, ratio: 0.5, enabled: yes}
list:
  - &one {size: 1}
  - size: 2
words: [a, b]
map: {x: 1}
`, &got)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, ignore); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("leaves alone what is not written", func(t *testing.T) {
		t.Parallel()
		got := outer{Name: "before", Inner: inner{Size: 7}}
		if err := decode(t, "port: 1\ninner: {wait: 1s}\nname:\n", &got); err != nil {
			t.Fatal(err)
		}
		want := outer{Name: "before", Port: 1, Inner: inner{Size: 7, Wait: time.Second}}
		if diff := cmp.Diff(want, got, ignore); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("takes an empty document", func(t *testing.T) {
		t.Parallel()
		for _, text := range []string{"", "# nothing\n", "---\n", "null\n"} {
			if err := decode(t, text, &outer{}); err != nil {
				t.Errorf("%q: %v", text, err)
			}
		}
	})
	t.Run("follows aliases", func(t *testing.T) {
		t.Parallel()
		var got outer
		if err := decode(t, "inner: &i {size: 3}\nlist: [*i, *i]\n", &got); err != nil {
			t.Fatal(err)
		}
		if len(got.List) != 2 || got.List[1].Size != 3 {
			t.Errorf("got %+v", got.List)
		}
	})
	t.Run("passes over the keys of others at the top level only", func(t *testing.T) {
		t.Parallel()
		if err := decode(t, "theirs: {a: 1}\n", &outer{}, "theirs"); err != nil {
			t.Error(err)
		}
		if err := decode(t, "inner: {theirs: 1}\n", &outer{}, "theirs"); err == nil {
			t.Error("want an error")
		}
	})

	wrong := []struct{ name, text, want string }{
		{"a mistyped field", "a: 1\nnmae: x\n", "f.yaml:1: a: unknown field; want one of colour, inner, list, map, name, port, words\nf.yaml:2: nmae: unknown field; did you mean \"name\"?"},
		{"a mistyped field inside", "inner:\n  wiat: 1s\n", "f.yaml:2: inner.wiat: unknown field; did you mean \"wait\"?"},
		{"a wrong item of a list", "list:\n  - size: 1\n  - size: many\n", "f.yaml:3: list[1].size: \"many\" is not a whole number: want one such as 500, 64MiB or 1GB"},
		{"a wrong duration", "inner: {wait: soon}", "f.yaml:1: inner.wait: \"soon\" is not a duration: want one such as 30s, 5m, 1h30m or 7d"},
		{"a duration without a unit", "inner: {wait: 30}", "f.yaml:1: inner.wait: \"30\" is not a duration: want one such as 30s, 5m, 1h30m or 7d"},
		{"a wrong truth", "inner: {enabled: maybe}", "f.yaml:1: inner.enabled: \"maybe\" is not true or false"},
		{"a number that is too large", "port: 65536", "f.yaml:1: port: 65536 is too large"},
		{"a negative number where none may be", "port: -1", "f.yaml:1: port: want a number that is not negative"},
		{"a value for a list", "words: a", "f.yaml:1: words: want a list, such as [a, b] or lines that begin with \"- \""},
		{"a list for a value", "name: [a]", "f.yaml:1: name: want one value, not a list or mapping"},
		{"a value for a mapping", "inner: 3", "f.yaml:1: inner: want a mapping of fields to values"},
		{"a field given twice", "name: a\nport: 1\nname: b\n", "f.yaml:3: name: given twice; keep one of them"},
		{"a top level that is a list", "- a\n", "f.yaml:1: want a mapping of keys to values at the top level"},
		{"no YAML", "name: a\n  port: 1\n", "f.yaml:2: not YAML: mapping values are not allowed in this context"},
		{"a field that is not exported", "hidden: a", "f.yaml:1: hidden: unknown field; want one of colour, inner, list, map, name, port, words"},
	}
	for _, c := range wrong {
		t.Run("says file, line and remedy of "+c.name, func(t *testing.T) {
			t.Parallel()
			err := decode(t, c.text, &outer{hidden: ""})
			if err == nil {
				t.Fatal("want an error")
			}
			if diff := cmp.Diff(c.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}

	t.Run("knows where a field was written", func(t *testing.T) {
		t.Parallel()
		var got outer
		if err := decode(t, "list:\n  - size: 1\n    wait: 2s\n", &got); err != nil {
			t.Fatal(err)
		}
		want := "f.yaml:3: too short"
		if text := got.List[0].Pos.Problem("wait", "too %s", "short").String(); text != want {
			t.Errorf("want %s, got %s", want, text)
		}
		want = "f.yaml:2: missing"
		if text := got.List[0].Pos.Problem("ratio", "missing").String(); text != want {
			t.Errorf("want %s, got %s", want, text)
		}
	})
	t.Run("passes over unknown fields where that is asked for", func(t *testing.T) {
		t.Parallel()
		document, err := strictyaml.Parse("f", []byte("name: a\nnew: 1\ninner: {newer: 2}\n"))
		if err != nil {
			t.Fatal(err)
		}
		var got outer
		if err := document.Lenient().Decode(&got); err != nil || got.Name != "a" {
			t.Errorf("got %q, %v", got.Name, err)
		}
	})
	t.Run("reads one section", func(t *testing.T) {
		t.Parallel()
		document, err := strictyaml.Parse("f", []byte("theirs: {a: 1}\nmine: {size: 4}\n"))
		if err != nil {
			t.Fatal(err)
		}
		var got inner
		if err := document.Section("mine", &got); err != nil || got.Size != 4 {
			t.Errorf("got %d, %v", got.Size, err)
		}
		if err := document.Section("absent", &got); err != nil || document.Has("absent") {
			t.Error(err)
		}
	})
}

func TestUnits(t *testing.T) {
	t.Parallel()
	sizes := map[string]int64{
		"0": 0, "-3": -3, "500": 500, "1_000": 1000, "10k": 10_000, "1KiB": 1024, "64MiB": 64 << 20, "1GB": 1e9, "1.5GiB": 3 << 29, "2T": 2e12, "3 MB": 3e6,
	}
	for text, want := range sizes {
		if got, err := strictyaml.ParseSize(text); err != nil || got != want {
			t.Errorf("%s: want %d, got %d, %v", text, want, got, err)
		}
	}
	for _, text := range []string{"", "x", "1.5", "1e3", "0x10", "10 parsecs", "9223372036854775808", "99999999P"} {
		if got, err := strictyaml.ParseSize(text); err == nil {
			t.Errorf("%q: want an error, got %d", text, got)
		}
	}
	durations := map[string]time.Duration{"0s": 0, "90s": 90 * time.Second, "1d": 24 * time.Hour, "1w2d": 9 * 24 * time.Hour, "1y": 8760 * time.Hour, "1d1h": 25 * time.Hour, "43800h0m0s": 43800 * time.Hour}
	for text, want := range durations {
		if got, err := strictyaml.ParseDuration(text); err != nil || got != want {
			t.Errorf("%s: want %s, got %s, %v", text, want, got, err)
		}
	}
	for _, text := range []string{"", "5", "d", "1h1d", "400y"} {
		if got, err := strictyaml.ParseDuration(text); err == nil {
			t.Errorf("%q: want an error, got %s", text, got)
		}
	}
}

func TestOverride(t *testing.T) {
	t.Parallel()
	t.Run("sets fields from environment variables", func(t *testing.T) {
		t.Parallel()
		got := outer{Name: "a", Words: []string{"x"}}
		environment := strictyaml.Environment([]string{"P_INNER_WAIT=5s", "P_INNER_RATIO=0.25", "P_WORDS=b, c", "P_NAME=", "P_PORT=9", "OTHER=1"})
		if err := strictyaml.Override(&got, "P", environment); err != nil {
			t.Fatal(err)
		}
		if got.Inner.Wait != 5*time.Second || *got.Inner.Ratio != 0.25 || got.Port != 9 || got.Name != "a" || !cmp.Equal(got.Words, []string{"b", "c"}) {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("names the variable that is wrong", func(t *testing.T) {
		t.Parallel()
		err := strictyaml.Override(&outer{}, "P", map[string]string{"P_PORT": "http"})
		want := `environment variable P_PORT: "http" is not a whole number: want one such as 500, 64MiB or 1GB`
		if err == nil || err.Error() != want {
			t.Errorf("want %s, got %v", want, err)
		}
	})
	t.Run("sets one field by its path", func(t *testing.T) {
		t.Parallel()
		var got outer
		if err := strictyaml.Set(&got, "inner.size", "3k"); err != nil || got.Inner.Size != 3000 {
			t.Errorf("got %d, %v", got.Inner.Size, err)
		}
		err := strictyaml.Set(&got, "inner.sise", "3")
		if err == nil || err.Error() != `unknown field; did you mean "inner.size"?` {
			t.Errorf("got %v", err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add("name: a\nlist: [{size: 1}]\n")
	f.Add("a: &a [*a]\n")
	f.Add("<<: {name: x}\n")
	f.Fuzz(func(t *testing.T, text string) {
		document, err := strictyaml.Parse("f", []byte(text))
		if err != nil {
			return
		}
		var got outer
		// Whatever is written, it is read or refused: neither a panic nor a hang.
		_ = document.Decode(&got)
	})
}
