// SPDX-License-Identifier: AGPL-3.0-only

package config

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/lakerunner/lakerunner/pkg/internal/strictyaml"
)

func TestDocumentationHasEveryKey(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keysOf(reflect.TypeFor[form]()) {
		if !strings.Contains(string(data), "`"+key+"`") && !strings.Contains(string(data), "\n"+key+":\n") {
			t.Errorf("docs/configuration.md does not mention `%s`", key)
		}
	}
	for _, name := range []string{EnvAdminKey, EnvOrganization, EnvBucket, EnvProvider, EnvEndpoint, EnvRegion} {
		if !strings.Contains(string(data), "`"+name+"`") {
			t.Errorf("docs/configuration.md does not mention %s", name)
		}
	}
	var top []string
	for i := range reflect.TypeFor[form]().NumField() {
		if name, _, _ := strings.Cut(reflect.TypeFor[form]().Field(i).Tag.Get("yaml"), ","); name != "-" {
			top = append(top, name)
		}
	}
	if !slices.Equal(top, Keys()) {
		t.Errorf("Keys() is %v, the form has %v", Keys(), top)
	}
}

func keysOf(t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		field := t.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if !field.IsExported() || field.Type == reflect.TypeFor[strictyaml.Pos]() {
			continue
		}
		keys = append(keys, name)
		element := field.Type
		if element.Kind() == reflect.Slice {
			element = element.Elem()
		}
		if element.Kind() == reflect.Struct {
			keys = append(keys, keysOf(element)...)
		}
	}
	return keys
}
