// SPDX-License-Identifier: AGPL-3.0-only

package strictyaml

import (
	"fmt"
	"reflect"
	"strings"
)

// Environment turns "NAME=value" entries, as os.Environ has them, into a map. A later entry wins.
func Environment(environ []string) map[string]string {
	out := make(map[string]string, len(environ))
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok {
			out[name] = value
		}
	}
	return out
}

// Override sets the fields of the struct that into points to from environment variables: the variable of field b in section a is
// PREFIX_A_B. Lists are separated by commas. An empty variable is one that is not set.
func Override(into any, prefix string, environment map[string]string) error {
	var problems Problems
	leaves(reflect.ValueOf(into).Elem(), "", func(path string, v reflect.Value) {
		name := prefix + "_" + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
		text := environment[name]
		if text == "" {
			return
		}
		if err := setText(v, text); err != nil {
			problems = append(problems, Problem{File: "environment variable " + name, Text: err.Error()})
		}
	})
	if len(problems) > 0 {
		return problems
	}
	return nil
}

// Set sets one field of the struct that into points to, named by its path: section.field. Lists are separated by commas.
func Set(into any, path, text string) error {
	var names []string
	found, err := false, error(nil)
	leaves(reflect.ValueOf(into).Elem(), "", func(leaf string, v reflect.Value) {
		names = append(names, leaf)
		if leaf == path {
			found, err = true, setText(v, text)
		}
	})
	if !found {
		return fmt.Errorf("unknown field; %s", Suggest(path, names))
	}
	return err
}

// leaves visits every scalar and list of scalars of a struct, with its path.
func leaves(v reflect.Value, path string, visit func(path string, v reflect.Value)) {
	for i := range v.NumField() {
		name, inline, ok := nameOf(v.Type().Field(i))
		if !ok {
			continue
		}
		field, fieldPath := v.Field(i), join(path, name)
		switch {
		case inline:
			leaves(field, path, visit)
		case isScalar(element(field)), field.Kind() == reflect.Slice && isScalar(reflect.New(field.Type().Elem()).Elem()):
			visit(fieldPath, field)
		case field.Kind() == reflect.Struct:
			leaves(field, fieldPath, visit)
		}
	}
}

// element looks through a pointer at what it points to, or would point to.
func element(v reflect.Value) reflect.Value {
	if v.Kind() == reflect.Pointer {
		return reflect.New(v.Type().Elem()).Elem()
	}
	return v
}

func setText(v reflect.Value, text string) error {
	switch {
	case v.Kind() == reflect.Pointer:
		fresh := reflect.New(v.Type().Elem())
		if err := set(fresh.Elem(), text); err != nil {
			return err
		}
		v.Set(fresh)
		return nil
	case v.Kind() != reflect.Slice:
		return set(v, text)
	}
	parts := strings.Split(text, ",")
	out := reflect.MakeSlice(v.Type(), len(parts), len(parts))
	for i, part := range parts {
		if err := set(out.Index(i), strings.TrimSpace(part)); err != nil {
			return err
		}
	}
	v.Set(out)
	return nil
}
