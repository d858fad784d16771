// SPDX-License-Identifier: AGPL-3.0-only

package strictyaml

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Document is a parsed YAML document whose top level is a mapping.
type Document struct {
	file    string
	root    *yaml.Node // nil: the document is empty
	lenient bool
}

// Parse reads a document. File is how errors call it.
func Parse(file string, data []byte) (*Document, error) {
	var node yaml.Node
	if err := yaml.Unmarshal(data, &node); err != nil {
		return nil, syntaxError(file, err)
	}
	if len(node.Content) == 0 || isNull(node.Content[0]) {
		return &Document{file: file}, nil
	}
	root := node.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, Problems{{File: file, Line: root.Line, Text: "want a mapping of keys to values at the top level"}}
	}
	return &Document{file: file, root: root}, nil
}

// Lenient returns the document with unknown fields ignored: for what a newer release may have written.
func (d *Document) Lenient() *Document {
	lenient := *d
	lenient.lenient = true
	return &lenient
}

// Has reports whether the document has a top-level key.
func (d *Document) Has(key string) bool { return d.value(key) != nil }

// Decode reads the whole document into the struct that into points to. Keys named in others belong to somebody else.
func (d *Document) Decode(into any, others ...string) error {
	if d.root == nil {
		return nil
	}
	dec := decoder{file: d.file, lenient: d.lenient, others: others}
	dec.decode(d.root, reflect.ValueOf(into).Elem(), "")
	return dec.err()
}

// Section reads the value of one top-level key into the struct that into points to; without that key it does nothing.
func (d *Document) Section(key string, into any) error {
	node := d.value(key)
	if node == nil {
		return nil
	}
	dec := decoder{file: d.file, lenient: d.lenient}
	dec.decode(node, reflect.ValueOf(into).Elem(), key)
	return dec.err()
}

func (d *Document) value(key string) *yaml.Node {
	if d.root == nil {
		return nil
	}
	for i := 0; i+1 < len(d.root.Content); i += 2 {
		if d.root.Content[i].Value == key {
			return d.root.Content[i+1]
		}
	}
	return nil
}

var yamlLine = regexp.MustCompile(`^yaml: (?:unmarshal errors:\s*)?line (\d+): (.*)`)

func syntaxError(file string, err error) error {
	text, line := strings.TrimPrefix(err.Error(), "yaml: "), 0
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = m[2]
	}
	return Problems{{File: file, Line: line, Text: "not YAML: " + text}}
}

type decoder struct {
	file     string
	lenient  bool
	others   []string // top-level keys of somebody else
	problems Problems
}

func (d *decoder) err() error {
	if len(d.problems) == 0 {
		return nil
	}
	return d.problems
}

func (d *decoder) fail(node *yaml.Node, path, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if path != "" {
		text = path + ": " + text
	}
	d.problems = append(d.problems, Problem{File: d.file, Line: node.Line, Text: text})
}

func (d *decoder) decode(node *yaml.Node, v reflect.Value, path string) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if isNull(node) {
		return
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		d.decode(node, v.Elem(), path)
		return
	}
	switch {
	case isScalar(v):
		d.scalar(node, v, path)
	case v.Kind() == reflect.Struct:
		d.structure(node, v, path)
	case v.Kind() == reflect.Slice:
		d.slice(node, v, path)
	case v.Kind() == reflect.Map:
		d.mapping(node, v, path)
	default:
		d.fail(node, path, "a field of type %s cannot be configured", v.Type())
	}
}

func (d *decoder) scalar(node *yaml.Node, v reflect.Value, path string) {
	if node.Kind != yaml.ScalarNode {
		d.fail(node, path, "want one value, not a list or mapping")
		return
	}
	if err := set(v, node.Value); err != nil {
		d.fail(node, path, "%v", err)
	}
}

func (d *decoder) slice(node *yaml.Node, v reflect.Value, path string) {
	if node.Kind != yaml.SequenceNode {
		d.fail(node, path, "want a list, such as [a, b] or lines that begin with \"- \"")
		return
	}
	out := reflect.MakeSlice(v.Type(), len(node.Content), len(node.Content))
	for i, item := range node.Content {
		d.decode(item, out.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
	v.Set(out)
}

func (d *decoder) mapping(node *yaml.Node, v reflect.Value, path string) {
	if node.Kind != yaml.MappingNode {
		d.fail(node, path, "want a mapping of names to values")
		return
	}
	out := reflect.MakeMap(v.Type())
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		value := reflect.New(v.Type().Elem()).Elem()
		d.decode(node.Content[i+1], value, join(path, key.Value))
		out.SetMapIndex(reflect.ValueOf(key.Value).Convert(v.Type().Key()), value)
	}
	v.Set(out)
}

func (d *decoder) structure(node *yaml.Node, v reflect.Value, path string) {
	if node.Kind != yaml.MappingNode {
		d.fail(node, path, "want a mapping of fields to values")
		return
	}
	fields := fieldsOf(v)
	pos := Pos{File: d.file, Line: node.Line, lines: map[string]int{}}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		if _, double := pos.lines[key.Value]; double {
			d.fail(key, join(path, key.Value), "given twice; keep one of them")
			continue
		}
		pos.lines[key.Value] = key.Line
		field, ok := fields[key.Value]
		if !ok {
			d.unknown(key, path, fields)
			continue
		}
		d.decode(node.Content[i+1], field, join(path, key.Value))
	}
	setPos(v, pos)
}

func (d *decoder) unknown(key *yaml.Node, path string, fields map[string]reflect.Value) {
	if d.lenient || path == "" && slices.Contains(d.others, key.Value) {
		return
	}
	names := make([]string, 0, len(fields)+len(d.others))
	for name := range fields {
		names = append(names, name)
	}
	if path == "" {
		names = append(names, d.others...)
	}
	d.fail(key, join(path, key.Value), "unknown field; %s", Suggest(key.Value, names))
}

// fieldsOf returns the settable fields of a struct by their names in YAML.
func fieldsOf(v reflect.Value) map[string]reflect.Value {
	fields := map[string]reflect.Value{}
	for i := range v.NumField() {
		name, inline, ok := nameOf(v.Type().Field(i))
		switch {
		case !ok:
		case inline:
			for inner, field := range fieldsOf(v.Field(i)) {
				fields[inner] = field
			}
		default:
			fields[name] = v.Field(i)
		}
	}
	return fields
}

func nameOf(f reflect.StructField) (name string, inline, ok bool) {
	if !f.IsExported() || f.Type == posType {
		return "", false, false
	}
	name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	if name == "-" {
		return "", false, false
	}
	if strings.Contains(options, "inline") {
		return "", true, true
	}
	if name == "" {
		name = strings.ToLower(f.Name)
	}
	return name, false, true
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func isNull(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.Tag == "!!null" }

func isScalar(v reflect.Value) bool {
	if _, ok := textOf(v); ok {
		return true
	}
	switch v.Kind() {
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float64:
		return true
	}
	return false
}

func textOf(v reflect.Value) (encoding.TextUnmarshaler, bool) {
	if !v.CanAddr() {
		return nil, false
	}
	text, ok := v.Addr().Interface().(encoding.TextUnmarshaler)
	return text, ok
}

// set gives a scalar the value that text says.
func set(v reflect.Value, text string) error {
	if u, ok := textOf(v); ok {
		return u.UnmarshalText([]byte(text))
	}
	if v.Type() == durationType {
		duration, err := ParseDuration(text)
		v.SetInt(int64(duration))
		return err
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
		return nil
	case reflect.Bool:
		return setBool(v, text)
	case reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number", text)
		}
		v.SetFloat(f)
		return nil
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return setUint(v, text)
	}
	return setInt(v, text)
}

func setBool(v reflect.Value, text string) error {
	switch strings.ToLower(text) {
	case "true", "yes", "on":
		v.SetBool(true)
	case "false", "no", "off":
		v.SetBool(false)
	default:
		return fmt.Errorf("%q is not true or false", text)
	}
	return nil
}

func setInt(v reflect.Value, text string) error {
	n, err := ParseSize(text)
	if err != nil {
		return err
	}
	if v.OverflowInt(n) {
		return fmt.Errorf("%s is too large", text)
	}
	v.SetInt(n)
	return nil
}

func setUint(v reflect.Value, text string) error {
	n, err := ParseSize(text)
	if err != nil {
		return err
	}
	if n < 0 {
		return errors.New("want a number that is not negative")
	}
	if v.OverflowUint(uint64(n)) {
		return fmt.Errorf("%s is too large", text)
	}
	v.SetUint(uint64(n))
	return nil
}
