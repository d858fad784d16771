// SPDX-License-Identifier: AGPL-3.0-only

package logs

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

func TestLabelsAreReadAsPrometheusDoes(t *testing.T) {
	t.Parallel()
	for _, set := range []labels.Labels{
		labels.EmptyLabels(), labels.FromStrings("a", "b"), labels.FromStrings("a", "", "b_1", "c, d=e"), labels.FromStrings("a", `q"uote`, "z", `back\slash`),
		labels.FromStrings("dotted.name", "x"), labels.FromStrings("__name__", "metric", "a", "b"), labels.FromStrings("ü", "é\n"), labels.FromStrings("a", "}", "b", "{"),
	} {
		text := set.String()
		want, err := parser.NewParser(parser.Options{}).ParseMetric(text)
		if err != nil && !set.IsEmpty() {
			t.Fatal(err)
		}
		got, err := parseLabels(text)
		if err != nil || !labels.Equal(got, want) {
			t.Errorf("%s: got %s, want %s, error %v", text, got, want, err)
		}
	}
	for text, plain := range map[string]bool{`{a="b", c="d"}`: true, `{c="d", a="b"}`: false, `{a="b"`: false, `{a="b", }`: false, `{a="b",c="d"}`: false, `{1a="b"}`: false} {
		if _, ok := plainLabels(text); ok != plain {
			t.Errorf("%s is plain: %t", text, ok)
		}
	}
}
