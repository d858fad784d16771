// SPDX-License-Identifier: AGPL-3.0-only

package template_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/template"
)

func TestTemplate(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"":                          "",
		"connection closed by peer": "connection closed by peer",
		"order 5f3a9c01 failed: card_declined after 1520ms": "order <*> failed: card_declined after <*>",
		"took 12 ms, 13 ms":                                          "took <*> ms, <*> ms",
		"sizes 1, 2, 3":                                              "sizes <*>",
		"sizes 1, 2":                                                 "sizes <*>",
		"peer 10.0.0.7:443 gone":                                     "peer <*> gone",
		"read /var/lib/x1/part-00012 done":                           "read <*> done",
		"id deadbeefcafe seen":                                       "id <*> seen",
		"2026-11-22 10:00:00,123 INFO started":                       "<*> INFO started",
		"Nov 22 10:00:00 web sshd[991]: failed":                      "<*> web sshd[<*>]: failed",
		`user=ann action="log in" took=3ms`:                          "user=<*> action=<*> took=<*>",
		`level=warn msg="disk is full" disk=sda`:                     `level=warn msg="disk is full" disk=<*>`,
		`{"msg":"order placed","user":"ann","total":12.5,"ok":true}`: `{"msg":"order placed","user":<*>,"total":<*>,"ok":<*>}`,
		`{"a": {"b": "x"}, "list": [1, 2, 3]}`:                       `{"a":{"b":<*>}, "list":[<*>]}`,
		`{"user":"say \"hi\"","n":1}`:                                `{"user":<*>,"n":<*>}`,
		"tabs\t\tand   spaces":                                       "tabs and spaces",
		"GET /settings/logo from http://web/x":                       "GET <*> from http:<*>",
		`"GET /filter?b=c,d&e=True HTTP/1.1" ok`:                     `"GET <*>" ok`,
		"free 12.5 KB of 3 MB, done":                                 "free <*> of <*>, done",
		"a = b":                                                      "a = b",
		"größe überschritten":                                        "größe überschritten",
		`broken="never closed`:                                       "broken=<*>",
		"f47ac10b-58cc-4372-a567-0e02b2c3d479 is unknown":            "<*> is unknown",
	} {
		if got := string(template.New().Template(line)); got != want {
			t.Errorf("Template(%q)\n got %s\nwant %s", line, got, want)
		}
	}
}

func TestFingerprint(t *testing.T) {
	t.Parallel()
	t.Run("is the hash of the template", func(t *testing.T) {
		t.Parallel()
		got, want := template.New().Fingerprint("took 12 ms"), lake.FingerprintOf([]byte("took <*> ms"))
		if got != want {
			t.Errorf("got %x, want %x", got, want)
		}
	})
	t.Run("does not depend on lines before", func(t *testing.T) {
		t.Parallel()
		used := template.New()
		for i := range 100 {
			used.Fingerprint(fmt.Sprintf("word%c=%d x %s", 'a'+i%26, i, strings.Repeat("z", i)))
		}
		line := `level=info msg="cache miss" key=user:991`
		if used.Fingerprint(line) != template.New().Fingerprint(line) {
			t.Error("differs")
		}
	})
	t.Run("looks at the beginning of a giant line only", func(t *testing.T) {
		t.Parallel()
		giant := strings.Repeat("a b ", 1<<20)
		if got := len(template.New().Template(giant)); got > 4096 {
			t.Errorf("a template of %d bytes", got)
		}
	})
}

func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{"", "a=\"", `{"a":`, "\x00\xff=", "x\\", `"k":`, "Jan 1", "a:1:"} {
		f.Add(seed)
	}
	used := template.New()
	f.Fuzz(func(t *testing.T, line string) {
		got := string(used.Template(line))
		if len(got) > 3*2048+8 {
			t.Errorf("a template of %d bytes", len(got))
		}
		if again := string(template.New().Template(line)); again != got {
			t.Errorf("%q then %q", got, again)
		}
	})
}

func BenchmarkFingerprint(b *testing.B) {
	lines := []string{
		`2026-11-22T10:00:00.123Z INFO  [http-nio-8080-exec-7] c.e.shop.OrderController order 5f3a9c01 for customer c-100234 accepted in 183ms from 10.1.44.7:51234`,
		`{"level":"info","ts":1795276800.123,"msg":"request served","method":"GET","path":"/api/v1/products/9f8a","status":200,"ms":12.4,"customer_id":"c-100007"}`,
		`level=warn ts=2026-11-22T10:00:00Z caller=store.go:214 msg="slow query" table=orders duration=1.52s rows=18234 trace=4bf92f3577b34da6a3ce929d0e0e4736 a=1`,
	}
	t := template.New()
	b.ReportAllocs()
	for i := range b.N {
		t.Fingerprint(lines[i%len(lines)])
	}
}
