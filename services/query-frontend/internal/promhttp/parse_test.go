// SPDX-License-Identifier: AGPL-3.0-only

package promhttp_test

import (
	"net/http"
	"testing"
)

func TestFormatQuery(t *testing.T) {
	t.Parallel()
	l := setup(t, "name: Acme")
	for text, want := range map[string]string{
		`foo/bar`:                        `"foo / bar"`,
		`sum by(a)(rate(x{b="c"} [5m]))`: `"sum by (a) (rate(x{b=\"c\"}[5m]))"`,
		`limitk(2,up)`:                   `"limitk(2, up)"`,
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			_, _, body := l.send(l.request(method, "format_query", values("query", text)))
			l.same(l.decode(body), `{"status":"success","data":`+want+`}`)
		}
	}
}

// TestParseQuery holds trees to those that Prometheus draws.
func TestParseQuery(t *testing.T) {
	t.Parallel()
	l := setup(t, "name: Acme")
	const (
		up   = `{"type":"vectorSelector","name":"up","offset":0,"offsetExpr":null,"matchers":[{"name":"__name__","value":"up","type":"="}],"timestamp":null,"startOrEnd":null,"anchored":false,"smoothed":false}`
		rate = `"func":{"name":"rate","argTypes":["matrix"],"variadic":0,"returnType":"vector"}`
	)
	for text, want := range map[string]string{
		`1.5`:    `{"type":"numberLiteral","val":"1.5"}`,
		`"text"`: `{"type":"stringLiteral","val":"text"}`,
		`-(up)`:  `{"type":"unaryExpr","op":"-","expr":{"type":"parenExpr","expr":` + up + `}}`,
		`up`:     up,
		`{a!="b", c=~"d"} offset 5m @ 7`: `{"type":"vectorSelector","name":"","offset":300000,"offsetExpr":null,"matchers":[{"name":"a","value":"b","type":"!="},{"name":"c","value":"d","type":"=~"}],` +
			`"timestamp":7000,"startOrEnd":null,"anchored":false,"smoothed":false}`,
		`up @ start()`: `{"type":"vectorSelector","name":"up","offset":0,"offsetExpr":null,"matchers":[{"name":"__name__","value":"up","type":"="}],"timestamp":null,"startOrEnd":"start","anchored":false,"smoothed":false}`,
		`rate(up[1m] smoothed)`: `{"type":"call",` + rate + `,"args":[{"type":"matrixSelector","name":"up","range":60000,"rangeExpr":null,"offset":0,"offsetExpr":null,` +
			`"matchers":[{"name":"__name__","value":"up","type":"="}],"timestamp":null,"startOrEnd":null,"anchored":false,"smoothed":true}]}`,
		`time()`: `{"type":"call","func":{"name":"time","argTypes":[],"variadic":0,"returnType":"scalar"},"args":[]}`,
		`sum without(a, b) (up)`: `{"type":"aggregation","op":"sum","expr":` + up +
			`,"param":null,"grouping":["a","b"],"without":true}`,
		`topk(3, up)`: `{"type":"aggregation","op":"topk","expr":` + up + `,"param":{"type":"numberLiteral","val":"3"},"grouping":[],"without":false}`,
		`up > bool 1`: `{"type":"binaryExpr","op":">","lhs":` + up + `,"rhs":{"type":"numberLiteral","val":"1"},"matching":null,"bool":true}`,
		`up * on(a) group_left(b) up`: `{"type":"binaryExpr","op":"*","lhs":` + up + `,"rhs":` + up +
			`,"matching":{"card":"many-to-one","labels":["a"],"on":true,"include":["b"],"fillValues":{"lhs":null,"rhs":null}},"bool":false}`,
		`up + fill(0) up`: `{"type":"binaryExpr","op":"+","lhs":` + up + `,"rhs":` + up +
			`,"matching":{"card":"one-to-one","labels":[],"on":false,"include":[],"fillValues":{"lhs":0,"rhs":0}},"bool":false}`,
		`up[1h:5m] offset 1m`: `{"type":"subquery","expr":` + up +
			`,"range":3600000,"rangeExpr":null,"offset":60000,"offsetExpr":null,"step":300000,"stepExpr":null,"timestamp":null,"startOrEnd":null}`,
		`up[1m+step()]`: `{"type":"matrixSelector","name":"up","range":0,"rangeExpr":{"type":"durationExpr","op":"+","lhs":{"type":"numberLiteral","val":"60","duration":true},` +
			`"rhs":{"type":"durationExpr","op":"step","lhs":null,"rhs":null,"wrapped":false},"wrapped":false},"offset":0,"offsetExpr":null,` +
			`"matchers":[{"name":"__name__","value":"up","type":"="}],"timestamp":null,"startOrEnd":null,"anchored":false,"smoothed":false}`,
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			l := l.of(t)
			l.same(l.get("parse_query", "query", text)["data"], want)
		})
	}
}
