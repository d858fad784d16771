// SPDX-License-Identifier: AGPL-3.0-only

package host

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/lakerunner/lakerunner/pkg/config"
)

func TestExampleConfiguration(t *testing.T) {
	t.Parallel()
	p, err := NewProcess(t.Context(), Start{
		Name: "ingestor", Files: []string{"../../deploy/config/example.yaml"},
		Environ: []string{"MINIO_ACCESS_KEY=a", "MINIO_SECRET_KEY=b", "GRAFANA_KEY=0123456789abcdef"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	s := p.Source.Current()
	if r := s.Resolve("acme-telemetry", "apps/globex/eu/x.log"); r.Organization != "globex" || r.Collector != "app-uploader" || r.SkipReason != "" {
		t.Errorf("got %+v", r)
	}
	if identity, ok := s.Authenticate("an example, make your own"); !ok || identity.Organization != "globex" || !identity.Has(config.ScopeIngest) {
		t.Errorf("got %+v", identity)
	}
}

func TestDocumentationHasEverySetting(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keysOf(reflect.TypeFor[Config](), "") {
		if !strings.Contains(string(data), "`"+key+"`") {
			t.Errorf("docs/configuration.md does not mention `%s`", key)
		}
	}
	for _, section := range Sections() {
		if !strings.Contains(string(data), "`"+section+"`") {
			t.Errorf("docs/configuration.md does not mention the section `%s`", section)
		}
	}
	known := map[string]bool{}
	for _, key := range append(ownKeys(), Sections()...) {
		known[key] = true
	}
	for i := range reflect.TypeFor[Config]().NumField() {
		if key := reflect.TypeFor[Config]().Field(i).Tag.Get("yaml"); !known[key] {
			t.Errorf("ownKeys lacks %s: pkg/config would not pass over it", key)
		}
	}
}

func keysOf(t reflect.Type, path string) []string {
	var keys []string
	for i := range t.NumField() {
		key := path + t.Field(i).Tag.Get("yaml")
		if t.Field(i).Type.Kind() == reflect.Struct {
			keys = append(keys, keysOf(t.Field(i).Type, key+".")...)
			continue
		}
		keys = append(keys, key)
	}
	return keys
}
