// SPDX-License-Identifier: AGPL-3.0-only

package columns_test

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/columns"
)

func TestLogQLName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"level":         "level",
		"userId":        "userId",
		"k8s.pod.name":  "k8s_pod_name",
		"a..b":          "a_b",
		"a__b":          "a_b",
		"_a":            "_a",
		"a.":            "a_",
		"__name__":      "__name__",
		"__a.b__":       "__a_b__",
		"__a":           "_a",
		"1st":           "key_1st",
		".1st":          "_1st",
		"größe":         "gr_e",
		"a\xff\xfeb":    "a_b",
		"":              "",
		"_":             "",
		"...":           "",
		"____":          "",
		"日本":            "",
		"http/1.1 code": "http_1_1_code",
	} {
		if got := columns.LogQLName(name); got != want {
			t.Errorf("LogQLName(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestValueText(t *testing.T) {
	t.Parallel()
	double := func(f float64) columns.Value {
		return columns.Value{Kind: columns.KindDouble, Num: math.Float64bits(f)}
	}
	minusOne := int64(-1)
	for want, v := range map[string]columns.Value{
		"1":                       double(1.0),
		"1.5":                     double(1.5),
		"1e+21":                   double(1e21),
		"1e-7":                    double(1e-7),
		"0.000001":                double(1e-6),
		"-0":                      double(math.Copysign(0, -1)),
		"NaN":                     double(math.NaN()),
		"Infinity":                double(math.Inf(1)),
		"-Infinity":               double(math.Inf(-1)),
		"-1":                      {Kind: columns.KindInt, Num: uint64(minusOne)},
		"true":                    {Kind: columns.KindBool, Num: 1},
		"false":                   {Kind: columns.KindBool},
		"AP8=":                    {Kind: columns.KindBytes, Str: "\x00\xff"},
		`[1,"a"]`:                 {Kind: columns.KindArray, Str: `[1,"a"]`},
		"text":                    {Str: "text"},
		`{"a":1}`:                 {Kind: columns.KindMap, Str: `{"a":1}`},
		"1.7976931348623157e+308": double(math.MaxFloat64),
	} {
		if got := v.Text(); got != want {
			t.Errorf("Text of %v = %q, want %q", v, got, want)
		}
	}
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	text := func(name, value string) columns.Attribute {
		return columns.Attribute{Name: name, Value: columns.Value{Str: value}}
	}
	origin := columns.Origin{
		Resource:     []columns.Attribute{text("service.name", "shop"), text("host.name", "h1"), text("service_name", "other")},
		ScopeName:    "lib",
		ScopeVersion: "1.2",
		Scope:        []columns.Attribute{text("host_name", "of the scope")},
	}
	stream := []columns.Label{{Name: "service_name", Value: "shop"}}
	row := &columns.LogRow{
		Time: 1, ObservedTime: 2, SeverityNumber: 9, SeverityText: "INFO", DetectedLevel: "info",
		TraceID: [16]byte{15: 0xab}, SpanID: [8]byte{7: 0xcd}, Flags: 1, DroppedAttributes: 3,
		Attributes: []columns.Attribute{
			text("a.b", "first"), text("a_b", "second"), text("trace_id", "of the attribute"), text("detected_level", "own"),
			{Name: "k8s.labels", Value: columns.Value{Kind: columns.KindMap, Str: `{"app.kubernetes.io/name":"x","n":{"d":1.5,"list":[1,"a"],"none":null}}`}},
			{Name: "empty", Value: columns.Value{Kind: columns.KindMap, Str: `{}`}},
			text("...", "has no name"),
		},
	}
	want := map[string]string{
		"a_b": "second", "trace_id": "000000000000000000000000000000ab", "span_id": "00000000000000cd", "flags": "1",
		"observed_timestamp": "2", "severity_number": "9", "severity_text": "INFO", "dropped_attributes_count": "3",
		"detected_level": "info", "host_name": "of the scope", "scope_name": "lib", "scope_version": "1.2",
		"k8s_labels_app_kubernetes_io_name": "x", "k8s_labels_n_d": "1.5", "k8s_labels_n_list": `[1,"a"]`, "k8s_labels_n_none": "",
		"service_name": "other",
	}
	t.Run("resolves names that meet by the documented precedence", func(t *testing.T) {
		t.Parallel()
		m := columns.NewMetadata(origin, stream)
		for range 2 {
			if diff := cmp.Diff(want, toMap(t, m.Append(nil, row))); diff != "" {
				t.Error(diff)
			}
		}
	})
	t.Run("keeps what is in the slice already", func(t *testing.T) {
		t.Parallel()
		got := columns.NewMetadata(origin, stream).Append([]columns.Label{{Name: "flags", Value: "kept"}}, row)
		if got[0].Value != "kept" || len(got) != len(want)+1 {
			t.Errorf("got %v", got)
		}
	})
	t.Run("shows the observed time only beside the event's own", func(t *testing.T) {
		t.Parallel()
		got := columns.NewMetadata(columns.Origin{}, nil).Append(nil, &columns.LogRow{Time: 2, TimeSource: columns.TimeObserved, ObservedTime: 2})
		if len(got) != 0 {
			t.Errorf("got %v", got)
		}
	})
	t.Run("survives text that is no map", func(t *testing.T) {
		t.Parallel()
		for _, broken := range []string{"", "x", `{"a"`, `{"a":`, `{"a":"b`, `{1:2}`, `[1]`} {
			r := &columns.LogRow{Attributes: []columns.Attribute{{Name: "m", Value: columns.Value{Kind: columns.KindMap, Str: broken}}}}
			columns.NewMetadata(columns.Origin{}, nil).Append(nil, r)
		}
	})
}

func toMap(t *testing.T, labels []columns.Label) map[string]string {
	t.Helper()
	m := make(map[string]string, len(labels))
	for _, l := range labels {
		if _, ok := m[l.Name]; ok {
			t.Errorf("%s comes twice", l.Name)
		}
		m[l.Name] = l.Value
	}
	return m
}
