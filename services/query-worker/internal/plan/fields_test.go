// SPDX-License-Identifier: AGPL-3.0-only

package plan

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/grafana/loki/v3/pkg/logql/syntax"
	"github.com/prometheus/prometheus/model/labels"
)

// TestFieldsDecide holds that lines with the same fields get the same labels from Loki's parser, however the rest of the line is mangled.
func TestFieldsDecide(t *testing.T) {
	t.Parallel()
	expr, err := ParseSelector("{a=`b`} | json x=`x`, y=`y`")
	if err != nil {
		t.Fatal(err)
	}
	fields, ok := FieldsOf(expr.(*syntax.PipelineExpr).MultiStages)
	if !ok || len(fields) != 2 {
		t.Fatalf("fields %v", fields)
	}
	pipeline, err := expr.Pipeline()
	if err != nil {
		t.Fatal(err)
	}
	stream := pipeline.ForStream(labels.FromStrings("a", "b"))
	rng := rand.New(rand.NewPCG(1, 2))
	pieces := []string{
		`{`, `}`, `[`, `]`, `,`, `:`, `"`, `\`, ` `, `"x"`, `"y"`, `"z"`, `"x":`, `"y":`, `"z":`, `"x":"1"`, `"y":"2"`, `"y":"\"2"`, `"z":"3\\"`, `"z":{"x":"4","y":[1,{"x":2}]}`,
		`"x":null`, `"y":17`, `"x":true`, `1`, `nul`, `é`, "\x00", `"x":{"y":1}`, `"\u0078":"5"`, `,"z":[],`, `{"x":"6",`, `"y":"7"}`, `"x":"ab c",`,
	}
	known := map[string]string{}
	plain := 0
	for range 300_000 {
		var b strings.Builder
		if rng.IntN(4) > 0 {
			b.WriteByte('{')
		}
		for range rng.IntN(7) {
			b.WriteString(pieces[rng.IntN(len(pieces))])
		}
		if rng.IntN(2) > 0 {
			b.WriteByte('}')
		}
		line := b.String()
		key, ok := fields.Append(nil, line)
		if !ok {
			continue
		}
		plain++
		_, result, _ := stream.ProcessString(0, line, labels.EmptyLabels())
		got := result.String()
		if want, there := known[string(key)]; there && want != got {
			t.Fatalf("%q gives %s, another line with the same fields %s", line, got, want)
		}
		known[string(key)] = got
	}
	if plain < 3000 {
		t.Errorf("only %d lines were plain", plain)
	}
}
