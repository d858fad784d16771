// SPDX-License-Identifier: AGPL-3.0-only

package mapping_test

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/columns"
)

func attribute(name, value string) columns.Attribute {
	return columns.Attribute{Name: name, Value: columns.Value{Str: value}}
}

// mapped maps one row and reads it back.
func mapped(t testing.TB, o columns.Origin, r columns.LogRow) (columns.LogRow, []columns.Label) {
	t.Helper()
	s := newSink()
	s.Origin(&o)
	if err := s.Row(&r); err != nil {
		t.Fatal(err)
	}
	var out columns.LogRow
	s.logs.Row(0, &out)
	return out, s.logs.StreamLabels(out.Stream)
}

func TestDetectedLevel(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		about    string
		resource []columns.Attribute
		row      columns.LogRow
		want     string
	}{
		{"is the producer's own, normalized", nil, columns.LogRow{Attributes: []columns.Attribute{attribute("detected.level", "WARNING")}, SeverityNumber: 9}, "warn"},
		{"is the attribute's before the record's", nil, columns.LogRow{Attributes: []columns.Attribute{attribute("level", "Err")}, SeverityText: "INFO"}, "error"},
		{"takes the name that comes first in the list", nil, columns.LogRow{Attributes: []columns.Attribute{attribute("lvl", "debug"), attribute("severity", "fatal")}}, "fatal"},
		{"is that of the severity text before the number", nil, columns.LogRow{SeverityText: "Information", SeverityNumber: 17}, "info"},
		{"keeps a text that is no known level", nil, columns.LogRow{SeverityText: "NOTICE"}, "NOTICE"},
		{"is found in the resource", []columns.Attribute{attribute("level", "trc")}, columns.LogRow{SeverityNumber: 9}, "trace"},
		{"is found in a map", nil, columns.LogRow{Attributes: []columns.Attribute{{Name: "severity", Value: columns.Value{Kind: columns.KindMap, Str: `{"text":"critical"}`}}}}, "critical"},
		{"is that of the severity number", nil, columns.LogRow{SeverityNumber: 18, Body: "level=info"}, "error"},
		{"is unknown for a number beyond the enum", nil, columns.LogRow{SeverityNumber: 99}, "unknown"},
		{"is a JSON body's field", nil, columns.LogRow{Body: ` {"a":{"level":"warn"},"level":"error"} `}, "warn"},
		{"is not looked for deep in JSON", nil, columns.LogRow{Body: `{"a":{"b":{"level":"wrn"}}}`}, "unknown"},
		{"is a dotted JSON field", nil, columns.LogRow{Body: `{"log.level":"DBG"}`}, "debug"},
		{"is a word of JSON that has no such field", nil, columns.LogRow{Body: `{"msg":"an error here"}`}, "error"},
		{"is a logfmt body's field", nil, columns.LogRow{Body: `lvl=trace LEVEL=warn msg="error"`}, "warn"},
		{"is the first word that is a level's", nil, columns.LogRow{Body: "10:00 [WARNING] error: disk"}, "warn"},
		{"needs a word of its own", nil, columns.LogRow{Body: "misc:error terrors errors informational"}, "unknown"},
		{"knows err before a colon", nil, columns.LogRow{Body: "err: no such file"}, "error"},
		{"is unknown where nothing speaks of it", nil, columns.LogRow{Body: "hello"}, "unknown"},
		{"is unknown for an empty line", nil, columns.LogRow{}, "unknown"},
	} {
		t.Run(c.about, func(t *testing.T) {
			t.Parallel()
			if got, _ := mapped(t, columns.Origin{Resource: c.resource}, c.row); got.DetectedLevel != c.want {
				t.Errorf("got %q, want %q", got.DetectedLevel, c.want)
			}
		})
	}
}

func TestDetectedLevelOfEveryNumber(t *testing.T) {
	t.Parallel()
	for i, level := range []string{"trace", "debug", "info", "warn", "error", "fatal"} {
		for step := range 4 {
			number := int32(4*i + step + 1)
			if got, _ := mapped(t, columns.Origin{}, columns.LogRow{SeverityNumber: number}); got.DetectedLevel != level {
				t.Errorf("%d: got %q, want %q", number, got.DetectedLevel, level)
			}
		}
	}
}

func TestStream(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		about    string
		resource []columns.Attribute
		want     []columns.Label
	}{
		{"is an unknown service's without a resource", nil, []columns.Label{{Name: "service_name", Value: "unknown_service"}}},
		{
			"has the listed attributes, sorted",
			[]columns.Attribute{attribute("service.name", "shop"), attribute("host.name", "h1"), attribute("k8s.pod.name", "p")},
			[]columns.Label{{Name: "k8s_pod_name", Value: "p"}, {Name: "service_name", Value: "shop"}},
		},
		{
			"names the service after a container",
			[]columns.Attribute{attribute("k8s.container.name", "web")},
			[]columns.Label{{Name: "k8s_container_name", Value: "web"}, {Name: "service_name", Value: "web"}},
		},
	} {
		t.Run(c.about, func(t *testing.T) {
			t.Parallel()
			_, got := mapped(t, columns.Origin{Resource: c.resource}, columns.LogRow{})
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRow(t *testing.T) {
	t.Parallel()
	t.Run("repairs every text and counts it", func(t *testing.T) {
		t.Parallel()
		s := newSink()
		s.Origin(&columns.Origin{Resource: []columns.Attribute{attribute("r\xff", "v")}, ScopeName: "\xfe"})
		r := columns.LogRow{
			Body: "a\xffb", SeverityText: "\xff", EventName: "\xff",
			Attributes: []columns.Attribute{attribute("n\xff", "v\xff"), {Name: "raw", Value: columns.Value{Kind: columns.KindBytes, Str: "\xff"}}},
		}
		if err := s.Row(&r); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{r.Body, r.SeverityText, r.EventName, r.DetectedLevel, r.Attributes[0].Name, r.Attributes[0].Value.Str} {
			if !utf8.ValidString(text) {
				t.Errorf("%q is not valid", text)
			}
		}
		if r.Attributes[1].Value.Str != "\xff" {
			t.Error("bytes were changed")
		}
		if s.mapper.Repaired != 7 {
			t.Errorf("repaired %d", s.mapper.Repaired)
		}
	})
	t.Run("drops attributes beyond the limit, and counts them", func(t *testing.T) {
		t.Parallel()
		s := newSink()
		s.Origin(&columns.Origin{Resource: []columns.Attribute{attribute("service.name", "shop")}})
		r := columns.LogRow{DroppedAttributes: 1, Attributes: []columns.Attribute{attribute("a", "1"), attribute("b", "2"), attribute("c", "3")}}
		s.mapper.Row(&r, 3)
		if len(r.Attributes) != 2 || r.DroppedAttributes != 2 {
			t.Errorf("%d attributes, %d dropped", len(r.Attributes), r.DroppedAttributes)
		}
	})
	t.Run("goes on with its origin after the logs were reset", func(t *testing.T) {
		t.Parallel()
		s := newSink()
		s.Origin(&columns.Origin{Resource: []columns.Attribute{attribute("service.name", "shop")}})
		s.logs.Reset()
		s.mapper.Resume()
		if err := s.Row(&columns.LogRow{Body: "x"}); err != nil {
			t.Fatal(err)
		}
		var r columns.LogRow
		s.logs.Row(0, &r)
		want := []columns.Label{{Name: "service_name", Value: "shop"}}
		if diff := cmp.Diff(want, s.logs.StreamLabels(r.Stream)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("remembers no more names than it should", func(t *testing.T) {
		t.Parallel()
		s := newSink()
		s.Origin(&columns.Origin{})
		for i := range 20_000 {
			r := columns.LogRow{Body: strings.Repeat("x", 10), Attributes: []columns.Attribute{attribute(fmt.Sprint("name", i), "v")}}
			s.mapper.Row(&r, 0)
			if r.DetectedLevel != "unknown" {
				t.Fatal(r.DetectedLevel)
			}
		}
	})
}

func FuzzLevelOfLine(f *testing.F) {
	for _, seed := range []string{"", "{", `{"level":`, `{"level":"info"}`, "level=", `a="b`, "=", "\xff=\xff", `{"a":{"level":"\u00"}}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		r, _ := mapped(t, columns.Origin{}, columns.LogRow{Body: line})
		if r.DetectedLevel == "" {
			t.Error("no level")
		}
	})
}
