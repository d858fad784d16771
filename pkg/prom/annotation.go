// SPDX-License-Identifier: AGPL-3.0-only

package prom

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/prometheus/prometheus/promql/parser/posrange"
	"github.com/prometheus/prometheus/util/annotations"
)

// Annotation is a remark of Prometheus' on an evaluation, fit to be sent.
type Annotation struct {
	// Info says that it is an info; else it is a warning.
	Info bool
	// Text are Prometheus' words, without the place.
	Text string
	// Start and End are the place in the expression, in bytes; End is behind it.
	Start, End int
}

// Annotations takes remarks apart, in the order of their texts.
func Annotations(a annotations.Annotations) []Annotation {
	var all []Annotation
	for text, err := range a {
		at := placeOf(err)
		all = append(all, Annotation{errors.Is(err, annotations.PromQLInfo), text, int(at.Start), int(at.End)})
	}
	slices.SortFunc(all, func(x, y Annotation) int { return cmp.Compare(x.Text, y.Text) })
	return all
}

// placeOf reads the place out of one of Prometheus' errors, whose types are its own but whose field is not.
func placeOf(err error) posrange.PositionRange {
	if v := reflect.ValueOf(err); v.Kind() == reflect.Pointer && v.Elem().Kind() == reflect.Struct {
		if field := v.Elem().FieldByName("PositionRange"); field.IsValid() {
			at, _ := field.Interface().(posrange.PositionRange)
			return at
		}
	}
	return posrange.PositionRange{}
}

// Annotate adds remarks that were made on a part of an expression, which begins at an offset of the whole one.
func Annotate(to *annotations.Annotations, remarks []Annotation, offset int) {
	for _, r := range remarks {
		r.Start, r.End = r.Start+offset, r.End+offset
		to.Add(&remark{Annotation: r})
	}
}

// remark is an Annotation among those of the engine's: an error that says its place once it knows the query.
type remark struct {
	Annotation
	query string
}

// Error implements error.
func (r *remark) Error() string {
	if r.query == "" || r.End > len(r.query) {
		return r.Text
	}
	at := posrange.PositionRange{Start: posrange.Pos(r.Start), End: posrange.Pos(r.Annotation.End)}
	return fmt.Sprintf("%s (%s)", r.Text, at.StartPosInput(r.query, 0))
}

// Unwrap says what sort of remark it is.
func (r *remark) Unwrap() error {
	if r.Info {
		return annotations.PromQLInfo
	}
	return annotations.PromQLWarning
}

// SetQuery is called before the remark is shown.
func (r *remark) SetQuery(query string) { r.query = query }

// Merge keeps one of two remarks of the same words.
func (r *remark) Merge(error) error { return r }
