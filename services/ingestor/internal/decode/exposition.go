// SPDX-License-Identifier: AGPL-3.0-only

package decode

import (
	"bytes"
	"math"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Exposition is what programs expose to be scraped: Prometheus' text format, or OpenMetrics. A line is a sample, with a time or without: then it has
// that of the object. Prometheus writes times in ms and OpenMetrics in s; they are told apart by their size, so a file may be either, or both, and need
// not end as OpenMetrics should. Names and labels are kept as they are, but for le and quantile, which are written as Prometheus does when it scrapes.
type Exposition struct{}

// Name is "prometheus-text".
func (Exposition) Name() string { return "prometheus-text" }

// sniffedLines is how many lines are looked at to know the format.
const sniffedLines = 100

// Sniff accepts content whose first lines are samples, comments or empty. A word and a number alone may be anything: there must be a sample with labels
// or a comment that says what a metric is. Where there is such a comment, or the name says that these are metrics, one line in ten may be broken. What is
// stored as logs is a log.
func (Exposition) Sniff(head Head) (lake.Signal, bool) {
	if head.Hint == lake.SignalLogs || head.Hint == lake.SignalSpans {
		return 0, false
	}
	b := trimBOM(head.Bytes)
	said, labelled := head.Hint == lake.SignalMetrics, false
	samples, broken := 0, 0
	for range sniffedLines {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		if !whole && (!head.Whole || len(line) == 0) {
			break
		}
		b = rest
		line = bytes.TrimSpace(line)
		var s sampleLine
		switch {
		case len(line) == 0:
		case line[0] == '#':
			said = said || describesMetric(line)
		case s.parse(line):
			samples++
			labelled = labelled || s.labelled
		default:
			broken++
		}
	}
	if said {
		return lake.SignalMetrics, samples > 0 && 10*broken <= samples+broken || samples+broken == 0 && describesMetric(bytes.TrimSpace(trimBOM(head.Bytes)))
	}
	return lake.SignalMetrics, labelled && broken == 0
}

func describesMetric(line []byte) bool {
	if len(line) == 0 || line[0] != '#' {
		return false
	}
	word, _ := nextWord(line[1:])
	return word == "TYPE" || word == "HELP" || word == "UNIT" || word == "EOF"
}

// nextWord splits off the next word, which may be quoted.
func nextWord(b []byte) (word string, rest []byte) {
	b = bytes.TrimLeft(b, " \t")
	if len(b) > 0 && b[0] == '"' {
		if end := quotedEnd(b); end > 0 {
			return unescapeLabel(b[1 : end-1]), b[end:]
		}
	}
	end := bytes.IndexAny(b, " \t")
	if end < 0 {
		end = len(b)
	}
	return text(b[:end]), b[end:]
}

// quotedEnd is where a quoted string ends that b begins with; 0: it does not.
func quotedEnd(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return 0
}

// unescapeLabel reads what \\, \" and \n stand for.
func unescapeLabel(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return text(b)
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+1 < len(b) {
			switch b[i+1] {
			case 'n':
				out, i = append(out, '\n'), i+1
				continue
			case '\\', '"':
				i++
			}
		}
		out = append(out, b[i])
	}
	return text(out)
}

// Decode reads line after line.
func (Exposition) Decode(r *Reader, o Options, to Sinks) error {
	d := &expositionDecoder{
		w: newWindow(r, o.Scratch.take()), to: to.Metrics, limit: o.MaxLineBytes, objectTime: o.ObjectTime.UnixNano(),
	}
	defer func() { o.Scratch.give(d.w.buf) }()
	d.w.skipBOM()
	d.to.Origin(&columns.Origin{})
	d.announce("")
	for {
		line, n, more := d.w.line(d.limit)
		if n == 0 {
			return d.w.ended()
		}
		if more {
			if err := d.to.Reject(ReasonTooLong, line); err != nil {
				return err
			}
			d.w.skipLine()
			continue
		}
		err := d.line(bytes.TrimSpace(line))
		d.w.consume(n)
		if err != nil {
			return err
		}
	}
}

type expositionDecoder struct {
	w          window
	to         MetricSink
	limit      int
	objectTime int64
	sample     sampleLine
	point      Point
	metric     Metric
	// family is what comments said of the metric of that name, which stand together.
	named  string
	family Family
}

// announce begins points after a comment said their type.
func (d *expositionDecoder) announce(typ model.MetricType) {
	d.metric = Metric{Kind: MetricSeries, Type: typ}
	d.to.Metric(&d.metric)
}

func (d *expositionDecoder) line(line []byte) error {
	switch {
	case len(line) == 0:
		return nil
	case line[0] == '#':
		d.comment(line[1:])
		return nil
	}
	s := &d.sample
	if !s.parse(line) {
		return d.to.Reject(ReasonMalformed, line)
	}
	p := &d.point
	p.reset()
	p.Key, p.lazy, p.Value, p.Time = s.series, d, s.value, s.time
	if !s.timed {
		p.Time = d.objectTime
	}
	if s.exemplar != nil {
		d.exemplar(p, s.exemplar)
	}
	return d.to.Point(p)
}

// comment reads what # HELP, # TYPE and # UNIT say of a family.
func (d *expositionDecoder) comment(b []byte) {
	word, b := nextWord(b)
	if word != "HELP" && word != "TYPE" && word != "UNIT" {
		return
	}
	name, b := nextWord(b)
	if name == "" {
		return
	}
	said := strings.TrimLeft(text(b), " \t")
	if name != d.named {
		d.named, d.family = strings.Clone(name), Family{}
	}
	f := &d.family
	switch word {
	case "HELP":
		f.Help = strings.Clone(unescapeLabel([]byte(said)))
	case "UNIT":
		f.Unit = strings.Clone(said)
	case "TYPE":
		f.Type = typeNamed(strings.TrimSpace(said))
		d.announce(f.Type)
	}
	d.to.Family(name, *f)
}

func typeNamed(s string) model.MetricType {
	switch t := model.MetricType(s); t {
	case model.MetricTypeCounter, model.MetricTypeGauge, model.MetricTypeHistogram, model.MetricTypeGaugeHistogram, model.MetricTypeSummary,
		model.MetricTypeInfo, model.MetricTypeStateset:
		return t
	}
	return model.MetricTypeUnknown
}

// loadAttributes implements attributeLoader.
func (d *expositionDecoder) loadAttributes(p *Point) error {
	walkSeries(d.sample.series, func(name string, value []byte) {
		text := unescapeLabel(value)
		if name == model.BucketLabel && d.metric.Type == model.MetricTypeHistogram || name == model.QuantileLabel && d.metric.Type == model.MetricTypeSummary {
			if f, err := strconv.ParseFloat(text, 64); err == nil {
				text = labels.FormatOpenMetricsFloat(f)
			}
		}
		p.Attributes = append(p.Attributes, columns.Attribute{Name: name, Value: columns.Value{Str: text}})
	})
	return nil
}

// exemplar reads {labels} value [time].
func (d *expositionDecoder) exemplar(p *Point, b []byte) {
	var e Exemplar
	end, _, ok := walkSeries(b, func(name string, value []byte) {
		e.Attributes = append(e.Attributes, columns.Attribute{Name: name, Value: columns.Value{Str: unescapeLabel(value)}})
	})
	if !ok {
		return
	}
	number, rest := nextWord(b[end:])
	if e.Value, ok = parseValue(number); !ok {
		return
	}
	if at, _ := nextWord(rest); at != "" {
		if e.Time, ok = exposedTime(at); !ok {
			return
		}
	}
	p.Exemplars = append(p.Exemplars, e)
}

// sampleLine is a line with a sample.
type sampleLine struct {
	series   []byte // as written
	labelled bool
	value    float64
	timed    bool
	time     int64 // ns since 1970
	exemplar []byte
}

// parse reads name{labels} value [time] [# exemplar]; false if the line is none.
func (s *sampleLine) parse(line []byte) bool {
	*s = sampleLine{}
	end, named, ok := walkSeries(line, nil)
	if !ok || !named {
		return false
	}
	s.series, s.labelled = line[:end], line[end-1] == '}'
	rest := line[end:]
	if !s.labelled && (len(rest) == 0 || rest[0] != ' ' && rest[0] != '\t') {
		return false
	}
	word, rest := nextWord(rest)
	if s.value, ok = parseValue(word); !ok {
		return false
	}
	if word, after := nextWord(rest); word != "" && word != "#" {
		if s.time, s.timed = exposedTime(word); !s.timed {
			return false
		}
		rest = after
	}
	word, rest = nextWord(rest)
	if word == "#" {
		if rest = bytes.TrimLeft(rest, " \t"); len(rest) > 0 && rest[0] == '{' {
			s.exemplar = rest
			return true
		}
	}
	return word == ""
}

// parseValue reads a number as Prometheus does, which knows neither hexadecimal ones nor underscores.
func parseValue(s string) (float64, bool) {
	if s == "" || strings.ContainsAny(s, "pPxX_") {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0, false
	}
	if math.IsNaN(f) {
		f = math.NaN()
	}
	return f, true
}

// secondsBefore is the number from which on a time counts ms and not s: there it is the year 5138 or 1973.
const secondsBefore = 1e11

// exposedTime reads a time in ms, or in s with or without a fraction.
func exposedTime(s string) (int64, bool) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if n > -secondsBefore && n < secondsBefore {
			return seconds(n), true
		}
		return milliseconds(n), true
	}
	f, ok := parseValue(s)
	if !ok || math.IsNaN(f) || math.IsInf(f, 0) {
		return 0, false
	}
	whole, fraction, _ := strings.Cut(s, ".")
	if n, err := strconv.ParseInt(whole, 10, 64); err == nil && n >= 0 && n < secondsBefore && digits(fraction) {
		// Without the digits that a float loses.
		return seconds(n) + min(fractionOf(fraction, 1e9), math.MaxInt64-seconds(n)), true
	}
	if math.Abs(f) >= secondsBefore {
		return milliseconds(int64(max(min(f, math.MaxInt64/2), math.MinInt64/2))), true
	}
	switch ns := f * 1e9; {
	case ns >= math.MaxInt64:
		return math.MaxInt64, true
	case ns <= math.MinInt64:
		return math.MinInt64, true
	default:
		return int64(ns), true
	}
}

// seconds is a time in s as ns, clamped to what an int64 holds.
func seconds(s int64) int64 {
	switch {
	case s > math.MaxInt64/1_000_000_000:
		return math.MaxInt64
	case s < math.MinInt64/1_000_000_000:
		return math.MinInt64
	}
	return s * 1_000_000_000
}

// walkSeries reads name{label="value",...}, {"name",label="value",...} or {label="value",...}, and returns where it ends and whether there is a name.
// Values are visited as they are written, between their quotes; the name comes as the label __name__. False: it is none of these.
func walkSeries(b []byte, visit func(name string, value []byte)) (end int, named, ok bool) {
	i := 0
	for i < len(b) && nameByte(b[i], i == 0, true) {
		i++
	}
	if i > 0 {
		named = true
		if visit != nil {
			visit(model.MetricNameLabel, b[:i])
		}
	}
	open := i
	for open < len(b) && (b[open] == ' ' || b[open] == '\t') {
		open++
	}
	if open == len(b) || b[open] != '{' {
		return i, named, named
	}
	w := seriesWalker{b: b, i: open + 1, visit: visit, named: named}
	if !w.labels() {
		return 0, false, false
	}
	return w.i, w.named, true
}

func nameByte(c byte, first, colon bool) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == ':' && colon || !first && c >= '0' && c <= '9'
}

type seriesWalker struct {
	b     []byte
	i     int
	visit func(name string, value []byte)
	named bool
}

// labels reads through the closing brace.
func (w *seriesWalker) labels() bool {
	for {
		switch w.peek() {
		case '}':
			w.i++
			return true
		case 0:
			return false
		}
		if !w.label() {
			return false
		}
		switch w.peek() {
		case ',':
			w.i++
		case '}':
		default:
			return false
		}
	}
}

// peek is the next byte that is no space; 0 at the end.
func (w *seriesWalker) peek() byte {
	for w.i < len(w.b) && (w.b[w.i] == ' ' || w.b[w.i] == '\t') {
		w.i++
	}
	if w.i == len(w.b) {
		return 0
	}
	return w.b[w.i]
}

// label reads label="value", "label"="value", or "name".
func (w *seriesWalker) label() bool {
	quoted := w.peek() == '"'
	name, ok := w.quoted()
	if !quoted {
		from := w.i
		for w.i < len(w.b) && nameByte(w.b[w.i], w.i == from, false) {
			w.i++
		}
		name, ok = w.b[from:w.i], w.i > from
	}
	if !ok {
		return false
	}
	if w.peek() != '=' {
		if !quoted || w.named {
			return false
		}
		w.named = true
		if w.visit != nil {
			w.visit(model.MetricNameLabel, name)
		}
		return true
	}
	w.i++
	if w.peek() != '"' {
		return false
	}
	value, ok := w.quoted()
	if ok && w.visit != nil {
		w.visit(unescapeLabel(name), value)
	}
	return ok
}

// quoted reads a string between quotes, which it begins at.
func (w *seriesWalker) quoted() ([]byte, bool) {
	if w.i >= len(w.b) || w.b[w.i] != '"' {
		return nil, false
	}
	n := quotedEnd(w.b[w.i:])
	if n == 0 {
		return nil, false
	}
	inside := w.b[w.i+1 : w.i+n-1]
	w.i += n
	return inside, true
}
