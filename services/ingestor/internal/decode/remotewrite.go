// SPDX-License-Identifier: AGPL-3.0-only

package decode

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"unicode"
	"unicode/utf8"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// RemoteWrite is what Prometheus' remote write sends, of either version: one snappy block with a WriteRequest or a Request, or many of them, each with
// its length before it as four bytes, the lowest first. It reads one request at a time. Names and labels are kept as they are.
type RemoteWrite struct{}

// Name is "prometheus-remote-write".
func (RemoteWrite) Name() string { return "prometheus-remote-write" }

// Sniff decompresses the beginning.
func (RemoteWrite) Sniff(head Head) (lake.Signal, bool) {
	_, ok := writeFraming(head.Bytes, head.Whole)
	return lake.SignalMetrics, ok
}

// writeFraming reports whether content begins with a request, and whether there is a length before it.
func writeFraming(b []byte, whole bool) (framed, ok bool) {
	if printable(b) {
		return false, false
	}
	if len(b) > 4 {
		size, block := uint64(binary.LittleEndian.Uint32(b)), b[4:]
		complete := size <= uint64(len(block))
		if complete {
			block = block[:size]
		}
		if (complete || !whole) && writeVersion(snappyPrefix(block, complete)) != 0 {
			return true, true
		}
	}
	return false, writeVersion(snappyPrefix(b, whole)) != 0
}

const (
	// prefixSize is how much of a block is looked at to know a request.
	prefixSize = 512
	// leastRequest is the size of the smallest request that says anything; OTLP protobuf begins with what would be that of a smaller one.
	leastRequest = 16
)

// snappyPrefix decompresses the beginning of a snappy block; nothing if it is none. whole says that no more of it follows.
func snappyPrefix(b []byte, whole bool) []byte {
	size, n := binary.Uvarint(b)
	if n <= 0 || size < leastRequest || size > math.MaxInt32 {
		return nil
	}
	out := make([]byte, 0, prefixSize+64)
	for b = b[n:]; len(b) > 0 && len(out) < prefixSize; {
		length, offset, used, ok := snappyElement(b)
		switch {
		case !ok && used > len(b) && !whole:
			return out
		case !ok, offset > len(out), uint64(len(out)+length) > size:
			return nil
		}
		if b = b[used:]; offset == 0 {
			if length > len(b) && whole {
				return nil
			}
			length = min(length, len(b))
			out, b = append(out, b[:min(length, prefixSize)]...), b[length:]
			continue
		}
		for from := len(out) - offset; length > 0 && len(out) < prefixSize; length-- {
			out = append(out, out[from])
			from++
		}
	}
	if whole && len(b) == 0 && len(out) < prefixSize && uint64(len(out)) != size {
		return nil
	}
	return out
}

// snappyElement reads the tag of a literal (offset zero) or a copy; used is the tag's length. Not ok: the tag is longer than b, or a copy of nothing.
func snappyElement(b []byte) (length, offset, used int, ok bool) {
	tag := b[0]
	used = []int{1, 2, 3, 5}[tag&3]
	if tag&3 == 0 && tag>>2 >= 60 {
		used = int(tag>>2) - 58
	}
	if len(b) < used {
		return 0, 0, used, false
	}
	switch {
	case tag&3 == 0 && used == 1:
		return int(tag>>2) + 1, 0, used, true
	case tag&3 == 0:
		return int(littleEndian(b[1:used])) + 1, 0, used, true
	case tag&3 == 1:
		length, offset = int(tag>>2&7)+4, int(tag>>5)<<8|int(b[1])
	default:
		length, offset = int(tag>>2)+1, int(littleEndian(b[1:used]))
	}
	return length, offset, used, offset > 0
}

func littleEndian(b []byte) uint32 {
	var n uint32
	for i := range b {
		n |= uint32(b[i]) << (8 * i)
	}
	return n
}

// writeVersion tells what a request of remote write begins like: 1, 2, or 0 for neither. The first has time series, which begin with labels, or
// metadata; the second symbols, of which the first is empty.
func writeVersion(b []byte) int {
	number, wire, value, ok := firstField(b)
	if !ok || wire != protowire.BytesType {
		return 0
	}
	switch {
	case number == 1 && seriesLike(value), number == 3 && familyLike(value):
		return 1
	case number == 4 && len(value) == 0 && symbolsLike(b):
		return 2
	}
	return 0
}

// fieldsOf visits the fields of what may be the beginning of a message; false if one is refused or broken. The last one may be cut.
func fieldsOf(b []byte, visit func(number protowire.Number, wire protowire.Type, value []byte, cut bool) bool) bool {
	d := protoDecoder{}
	for len(b) > 0 {
		number, wire, value, rest, err := d.consumeField(b)
		cut := errors.Is(err, errCut)
		if err != nil && !cut {
			return number == 0 && len(b) < 12 // the tag or the number may be cut, too
		}
		if !visit(number, wire, value, cut) {
			return false
		}
		b = rest
	}
	return true
}

func seriesLike(b []byte) bool {
	labels := 0
	return fieldsOf(b, func(number protowire.Number, wire protowire.Type, value []byte, cut bool) bool {
		if wire != protowire.BytesType || number > 4 {
			return false
		}
		if number == 1 && !cut {
			labels++
			return labelLike(value)
		}
		return true
	}) && labels > 0
}

// labelLike reports whether b is a label: a name of printable text, and perhaps a value.
func labelLike(b []byte) bool {
	named := false
	return fieldsOf(b, func(number protowire.Number, wire protowire.Type, value []byte, cut bool) bool {
		if cut || wire != protowire.BytesType || number > 2 || !utf8.Valid(value) {
			return false
		}
		if number == 1 {
			named = len(value) > 0 && bytes.IndexFunc(value, unicode.IsControl) < 0
		}
		return true
	}) && named
}

func familyLike(b []byte) bool {
	named := false
	return fieldsOf(b, func(number protowire.Number, wire protowire.Type, value []byte, cut bool) bool {
		named = named || number == 2 && len(value) > 0
		return number == 1 && wire == protowire.VarintType || number > 1 && number <= 5 && wire == protowire.BytesType && (cut || utf8.Valid(value))
	}) && named
}

func symbolsLike(b []byte) bool {
	return len(b) > 2 && fieldsOf(b, func(number protowire.Number, wire protowire.Type, value []byte, cut bool) bool {
		return wire == protowire.BytesType && (number == 5 || number == 4 && (cut || utf8.Valid(value)))
	})
}

// Decode reads request after request.
func (RemoteWrite) Decode(r *Reader, o Options, to Sinks) error {
	head, err := r.Peek(min(headSize, r.Size()))
	framed, _ := writeFraming(head, errors.Is(err, io.EOF))
	d := &writeDecoder{to: to.Metrics, limit: o.MaxResourceBytes, most: o.MaxBytes, block: o.Scratch.take()}
	defer func() { o.Scratch.give(d.block) }()
	d.to.Origin(&columns.Origin{})
	for {
		done, err := d.next(r, framed)
		if done || err != nil {
			return err
		}
	}
}

func errWrite(err error) error {
	return fault.New(fault.Invalid, "remote-write request is broken: %w", err)
}

// writeDecoder walks requests. Labels of a series are not read before somebody asks for them.
type writeDecoder struct {
	to          MetricSink
	limit       int
	most, total int64
	block, raw  []byte
	point       Point
	metric      Metric
	// message is the time series at hand, labels where those lie in it, refs and symbols what they are made of in the second version.
	message   []byte
	labels    []span
	refs      []uint32
	symbols   [][]byte
	key       []byte
	exemplars []Exemplar
	shape     writeShape
}

// writeShape is the numbers that fields of a time series have.
type writeShape struct {
	version, samples, histograms, exemplars, metadata protowire.Number
}

// next reads one request.
func (d *writeDecoder) next(r *Reader, framed bool) (done bool, err error) {
	size := int64(snappy.MaxEncodedLen(d.limit))
	if framed {
		var length [4]byte
		if _, err := io.ReadFull(r, length[:]); err != nil {
			return errors.Is(err, io.EOF), ignoreEOF(cutWrite(err))
		}
		if n := int64(binary.LittleEndian.Uint32(length[:])); n <= size {
			size = n
		} else {
			return false, errWrite(fmt.Errorf("it has %d bytes, the limit is %d", n, size))
		}
	}
	if err := d.read(r, size, framed); err != nil {
		return false, err
	}
	if !framed {
		if _, err := r.Peek(1); err == nil {
			return false, errWrite(fmt.Errorf("it has more than %d bytes", size))
		}
	}
	return !framed, d.decompressed()
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// cutWrite makes the end of the content inside a request a truncation.
func cutWrite(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, ErrTruncated) {
		return fmt.Errorf("it ends inside a remote-write request: %w", ErrTruncated)
	}
	return err
}

// read reads at most size bytes of the content into d.block, exactly as many when exact.
func (d *writeDecoder) read(r *Reader, size int64, exact bool) error {
	d.block = d.block[:0]
	for int64(len(d.block)) < size {
		// Grow as bytes arrive: a length is a claim, not a reason to allocate.
		if len(d.block) == cap(d.block) {
			d.block = append(d.block, make([]byte, max(64<<10, len(d.block)))...)[:len(d.block)]
		}
		room := d.block[len(d.block):min(int64(cap(d.block)), size)]
		n, err := io.ReadFull(r, room)
		d.block = d.block[:len(d.block)+n]
		switch {
		case err == nil:
		case !exact && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, ErrTruncated)):
			return nil
		case errors.Is(err, io.EOF):
			return cutWrite(io.ErrUnexpectedEOF)
		default:
			return cutWrite(err)
		}
	}
	return nil
}

func (d *writeDecoder) decompressed() error {
	size, err := snappy.DecodedLen(d.block)
	if err != nil {
		return errWrite(err)
	}
	d.total += int64(size)
	if size > d.limit || d.most > 0 && d.total > d.most {
		return errWrite(fmt.Errorf("it has %d bytes decompressed, the limit is %d", size, d.limit))
	}
	if d.raw, err = snappy.Decode(d.raw[:cap(d.raw)], d.block); err != nil {
		return errWrite(err)
	}
	return d.request(d.raw)
}

// request gives the points of a request. What it says of families, and the symbols, come first wherever they stand.
func (d *writeDecoder) request(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	d.shape = writeShape{version: 1, samples: 2, histograms: 4, exemplars: 3}
	series := protowire.Number(1)
	if b[0] == 4<<3|2 || b[0] == 5<<3|2 { // the first version has no such fields
		series = 5
		d.shape = writeShape{version: 2, samples: 2, histograms: 3, exemplars: 4, metadata: 5}
	}
	d.symbols = d.symbols[:0]
	for w := (wire{b: b}); ; {
		ok, err := w.next()
		if err != nil {
			return errWrite(err)
		}
		if !ok {
			break
		}
		switch {
		case w.kind != protowire.BytesType:
		case w.field == 4 && d.shape.version == 2:
			d.symbols = append(d.symbols, w.value)
		case w.field == 3 && d.shape.version == 1:
			if err := d.family(w.value); err != nil {
				return errWrite(err)
			}
		}
	}
	d.metric = Metric{Kind: MetricSeries}
	d.to.Metric(&d.metric)
	for w := (wire{b: b}); ; {
		ok, err := w.next()
		if err != nil || !ok {
			return err
		}
		if w.field == series && w.kind == protowire.BytesType {
			if err := d.series(w.value); err != nil {
				return err
			}
		}
	}
}

// family reads a MetricMetadata of the first version: type 1, metric_family_name 2, help 4, unit 5.
func (d *writeDecoder) family(b []byte) error {
	var f Family
	name := ""
	for w := (wire{b: b}); ; {
		ok, err := w.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		switch {
		case w.field == 1 && w.kind == protowire.VarintType:
			f.Type = writeType(w.number)
		case w.kind != protowire.BytesType:
		case w.field == 2:
			name = text(w.value)
		case w.field == 4:
			f.Help = text(w.value)
		case w.field == 5:
			f.Unit = text(w.value)
		}
	}
	if name != "" {
		d.to.Family(name, f)
	}
	return nil
}

func writeType(n uint64) model.MetricType {
	switch n {
	case 1:
		return model.MetricTypeCounter
	case 2:
		return model.MetricTypeGauge
	case 3:
		return model.MetricTypeHistogram
	case 4:
		return model.MetricTypeGaugeHistogram
	case 5:
		return model.MetricTypeSummary
	case 6:
		return model.MetricTypeInfo
	case 7:
		return model.MetricTypeStateset
	}
	return model.MetricTypeUnknown
}

// series gives the points of a TimeSeries. Its exemplars go to the last of them.
func (d *writeDecoder) series(b []byte) error {
	d.message, d.labels, d.refs, d.exemplars = b, d.labels[:0], d.refs[:0], d.exemplars[:0]
	points, started := 0, int64(0)
	for w := (wire{b: b}); ; {
		from := len(b) - len(w.b)
		ok, err := w.next()
		if err != nil {
			return errWrite(err)
		}
		if !ok {
			break
		}
		switch {
		case w.field == 6 && d.shape.version == 2 && w.kind == protowire.VarintType:
			started = milliseconds(int64(w.number))
		case w.field == 1:
			err = d.label(&w, from)
		case w.kind != protowire.BytesType:
		case w.field == d.shape.samples, w.field == d.shape.histograms:
			points++
		case w.field == d.shape.exemplars:
			err = d.exemplar(w.value)
		case w.field == d.shape.metadata:
			err = d.metadata(w.value)
		}
		if err != nil {
			return errWrite(err)
		}
	}
	return d.points(b, points, started)
}

// label notes labels of a series.
func (d *writeDecoder) label(w *wire, from int) error {
	if d.shape.version == 1 {
		if w.kind == protowire.BytesType {
			d.labels = appendSpan(d.labels, from, len(d.message)-len(w.b))
		}
		return nil
	}
	var err error
	d.refs, err = appendRefs(d.refs, w)
	return err
}

// appendSpan notes a part that begins at from and ends before to.
func appendSpan(spans []span, from, to int) []span {
	if n := len(spans); n > 0 && spans[n-1].to == from {
		spans[n-1].to = to
		return spans
	}
	return append(spans, span{from: from, to: to})
}

// appendRefs appends repeated uint32, packed or not.
func appendRefs(refs []uint32, w *wire) ([]uint32, error) {
	if w.kind == protowire.VarintType {
		return append(refs, uint32(min(w.number, math.MaxUint32))), nil
	}
	if w.kind != protowire.BytesType {
		return refs, nil
	}
	for b := w.value; len(b) > 0; {
		v, n := uvarint(b)
		if n <= 0 {
			return refs, errCut
		}
		refs, b = append(refs, uint32(min(v, math.MaxUint32))), b[n:]
	}
	return refs, nil
}

func (d *writeDecoder) points(b []byte, count int, started int64) error {
	if count == 0 && len(d.exemplars) == 0 {
		return nil
	}
	key := d.keyOf(b)
	begin := func() *Point {
		d.point.reset()
		p := &d.point
		p.Key, p.lazy, p.Start = key, d, started
		if count--; count <= 0 {
			p.Exemplars = append(p.Exemplars, d.exemplars...)
		}
		return p
	}
	if count == 0 {
		p := begin()
		p.Bare = true
		return d.to.Point(p)
	}
	for w := (wire{b: b}); ; {
		ok, err := w.next()
		if err != nil || !ok {
			return err
		}
		if w.kind != protowire.BytesType {
			continue
		}
		switch w.field {
		case d.shape.samples:
			err = d.sample(begin(), w.value)
		case d.shape.histograms:
			err = d.histogram(begin(), w.value)
		}
		if err != nil {
			return err
		}
	}
}

// sample gives a Sample: value 1, timestamp 2, start_timestamp 3.
func (d *writeDecoder) sample(p *Point, b []byte) error {
	for w := (wire{b: b}); ; {
		ok, err := w.next()
		if err != nil {
			return errWrite(err)
		}
		if !ok {
			return d.to.Point(p)
		}
		switch {
		case w.field == 1 && w.kind == protowire.Fixed64Type:
			p.Value = math.Float64frombits(w.number)
		case w.field == 2 && w.kind == protowire.VarintType:
			p.Time = milliseconds(int64(w.number))
		case w.field == 3 && w.kind == protowire.VarintType:
			p.Start = milliseconds(int64(w.number))
		}
	}
}

func (d *writeDecoder) histogram(p *Point, b []byte) error {
	h := writeHistogram{}
	err := h.read(b)
	if errors.Is(err, errBuckets) {
		return d.to.Reject(ReasonTooManyBuckets, b[:min(len(b), maxRejected)])
	}
	if err != nil {
		return errWrite(err)
	}
	p.Time, p.Native = h.time, h.native()
	if h.start != 0 {
		p.Start = h.start
	}
	return d.to.Point(p)
}

// milliseconds is a time in ms as ns, clamped to what an int64 holds.
func milliseconds(ms int64) int64 {
	switch {
	case ms > math.MaxInt64/1_000_000:
		return math.MaxInt64
	case ms < math.MinInt64/1_000_000:
		return math.MinInt64
	}
	return ms * 1_000_000
}

// keyOf is what the labels are made of, where that is alike in all requests.
func (d *writeDecoder) keyOf(b []byte) []byte {
	switch {
	case d.shape.version == 2:
		return nil
	case len(d.labels) == 1:
		return b[d.labels[0].from:d.labels[0].to]
	}
	d.key = append(d.key[:0], '\n') // a tag, so that no key is empty
	for _, s := range d.labels {
		d.key = append(d.key, b[s.from:s.to]...)
	}
	return d.key
}

// loadAttributes implements attributeLoader.
func (d *writeDecoder) loadAttributes(p *Point) (err error) {
	if d.shape.version == 2 {
		p.Attributes, err = d.resolve(p.Attributes, d.refs)
		return err
	}
	for _, s := range d.labels {
		if p.Attributes, err = appendLabels(p.Attributes, d.message[s.from:s.to]); err != nil {
			return err
		}
	}
	return nil
}

// resolve appends the labels of pairs of symbols.
func (d *writeDecoder) resolve(into []columns.Attribute, refs []uint32) ([]columns.Attribute, error) {
	if len(refs)%2 != 0 {
		return into, errWrite(errors.New("labels without a value"))
	}
	for i := 0; i < len(refs); i += 2 {
		name, ok1 := d.symbol(refs[i])
		value, ok2 := d.symbol(refs[i+1])
		if !ok1 || !ok2 {
			return into, errWrite(errors.New("a symbol that is not there"))
		}
		into = append(into, columns.Attribute{Name: name, Value: columns.Value{Str: value}})
	}
	return into, nil
}

func (d *writeDecoder) symbol(ref uint32) (string, bool) {
	if uint64(ref) >= uint64(len(d.symbols)) {
		return "", false
	}
	return text(d.symbols[ref]), true
}

// appendLabels appends those of fields that are Label: name 1, value 2.
func appendLabels(into []columns.Attribute, b []byte) ([]columns.Attribute, error) {
	for w := (wire{b: b}); ; {
		ok, err := w.next()
		if err != nil {
			return into, errWrite(err)
		}
		if !ok {
			return into, nil
		}
		var a columns.Attribute
		for l := (wire{b: w.value}); ; {
			ok, err := l.next()
			if err != nil {
				return into, errWrite(err)
			}
			if !ok {
				break
			}
			switch {
			case l.kind != protowire.BytesType:
			case l.field == 1:
				a.Name = text(l.value)
			case l.field == 2:
				a.Value.Str = text(l.value)
			}
		}
		into = append(into, a)
	}
}

// exemplar reads an Exemplar: labels 1, value 2, timestamp 3.
func (d *writeDecoder) exemplar(b []byte) error {
	if len(d.exemplars) == maxExemplars {
		return nil
	}
	var e Exemplar
	var refs []uint32
	for w := (wire{b: b}); ; {
		from := len(b) - len(w.b)
		ok, err := w.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		switch {
		case w.field == 1 && d.shape.version == 2:
			refs, err = appendRefs(refs, &w)
		case w.field == 1 && w.kind == protowire.BytesType:
			e.Attributes, err = appendLabels(e.Attributes, b[from:len(b)-len(w.b)])
		case w.field == 2 && w.kind == protowire.Fixed64Type:
			e.Value = math.Float64frombits(w.number)
		case w.field == 3 && w.kind == protowire.VarintType:
			e.Time = milliseconds(int64(w.number))
		}
		if err != nil {
			return err
		}
	}
	var err error
	e.Attributes, err = d.resolve(e.Attributes, refs)
	d.exemplars = append(d.exemplars, e)
	return err
}

// metadata reads a Metadata of the second version: type 1, help_ref 3, unit_ref 4.
func (d *writeDecoder) metadata(b []byte) error {
	var refs [5]uint32
	var f Family
	for w := (wire{b: b}); ; {
		ok, err := w.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		switch {
		case w.kind != protowire.VarintType:
		case w.field == 1:
			f.Type = writeType(w.number)
		case w.field == 3, w.field == 4:
			refs[w.field] = uint32(min(w.number, math.MaxUint32))
		}
	}
	f.Help, _ = d.symbol(refs[3])
	f.Unit, _ = d.symbol(refs[4])
	if f == (Family{}) {
		return nil // every series brings one
	}
	for i := 0; i+1 < len(d.refs); i += 2 {
		if name, _ := d.symbol(d.refs[i]); name == model.MetricNameLabel {
			metric, _ := d.symbol(d.refs[i+1])
			d.to.Family(familyName(metric, f.Type), f)
			break
		}
	}
	return nil
}
