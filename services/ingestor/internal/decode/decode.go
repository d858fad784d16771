// SPDX-License-Identifier: AGPL-3.0-only

// Package decode turns the content of a source object into log rows or points of metrics. It knows a format by its content, never by a name:
// compression first (gzip, zstd, nested), then OTLP protobuf, OTLP JSON, JSON values, plain lines.
//
// Invariants:
//
//   - Memory is bounded, whatever the content: one row, or one OTLP resource with its rows, is held at a time, and both have limits;
//     decompression has limits of size and ratio and is streamed.
//   - No content makes a decoder panic or run without end.
//   - Each row of the content is either given to Sink.Row or counted by Sink.Reject, once.
//   - Content that ends too early, as a truncated gzip member does, gives the rows before its end, and a Problem that says so. Content
//     that is broken otherwise gives an error, and its rows are void.
//
// A new format is a Decoder in Decoders, and cases in the conformance suite.
//
// It does not know organizations: labels, levels, templates, acceptance and the repair of strings are the caller's.
package decode

import (
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Reasons that decoders give for rejected rows. The caller has reasons of its own.
const (
	ReasonTooLong   = "line_too_long"
	ReasonMalformed = "malformed"
)

// Sink takes what a decoder finds.
type Sink interface {
	// Origin announces the resource and scope of the rows that follow. The sink copies what it keeps.
	Origin(o *columns.Origin)
	// Row takes one row; its Stream, Origin, Fingerprint, DetectedLevel and Source are the sink's to fill. The row's strings live
	// until Row returns, and may be invalid UTF-8. An error ends the decoding and comes out of it as it is.
	Row(r *columns.LogRow) error
	// Reject counts a row that cannot be decoded; raw is the beginning of it. An error ends the decoding.
	Reject(reason string, raw []byte) error
}

// Sinks are where rows go, by the signal of the content. Nil: content of that signal is ErrUnsupported.
type Sinks struct {
	Logs    Sink
	Metrics MetricSink
}

func (s Sinks) take(signal lake.Signal) bool {
	switch signal {
	case lake.SignalLogs:
		return s.Logs != nil
	case lake.SignalMetrics:
		return s.Metrics != nil
	}
	return false
}

// Decoder knows one format.
type Decoder interface {
	// Name is the format's name on receipts.
	Name() string
	// Sniff reports whether content that begins with head is of this format, and its signal.
	Sniff(head Head) (lake.Signal, bool)
	// Decode gives all rows of the content to the sink of its signal, which Sniff told. Content that ends too early is ErrTruncated, after the
	// rows before its end.
	Decode(r *Reader, o Options, to Sinks) error
}

// Head is what a format is known by.
type Head struct {
	// Bytes are the first of the decompressed content, at most headSize; Whole says that there are no more.
	Bytes []byte
	Whole bool
	// Hint is the signal that the object's name promises; it decides where content is of several.
	Hint lake.Signal
}

const headSize = 64 << 10

// Decoders returns the decoders in the order in which they are asked. A mapping for tables comes from who stored the content; nil: there is none.
func Decoders(table *Table) []Decoder {
	return []Decoder{Parquet{table}, RemoteWrite{}, OTLPProto{}, OTLPJSON{}, JSONLines{}, Exposition{}, CSV{table}, TextLines{}}
}

// Options are the bounds of one decoding. Zero values mean the defaults.
type Options struct {
	// ObjectTime is when the object was written: the time of rows that have none.
	ObjectTime time.Time
	// Hint is the signal that the object's name promises.
	Hint lake.Signal
	// MaxLineBytes is the longest body, or line. Default 1 MiB.
	MaxLineBytes int
	// MaxResourceBytes is the largest OTLP resource with its rows, decompressed. Default 64 MiB.
	MaxResourceBytes int
	// MaxBytes is the most that an object may become when decompressed. Default 16 GiB.
	MaxBytes int64
	// MaxRatio is the most that content may grow when decompressed, applied from 64 MiB on. Default 400.
	MaxRatio int64
	// Scratch lends memory from one decoding to the next of one goroutine. Nil: each has its own.
	Scratch *Scratch
	// ScratchDirectory is for content that must be read from its end and is too large for memory. Empty: the system's.
	ScratchDirectory string
	// Table is how rows of a table are points of metrics, where the content is one; nil: its header must say it.
	Table *Table
	// Signal is that of the content: what Sniff told. Decode fills it in.
	Signal lake.Signal
}

// Scratch is memory that decodings use one after the other.
type Scratch struct{ buffer []byte }

// maxScratch is the largest buffer worth keeping: the rare giant must not stay for ever.
const maxScratch = 32 << 20

func (s *Scratch) take() []byte {
	if s == nil {
		return nil
	}
	b := s.buffer
	s.buffer = nil
	return b[:0]
}

func (s *Scratch) give(b []byte) {
	if s != nil && cap(b) <= maxScratch {
		s.buffer = b
	}
}

func (o Options) withDefaults() Options {
	if o.MaxLineBytes <= 0 {
		o.MaxLineBytes = 1 << 20
	}
	if o.MaxResourceBytes <= 0 {
		o.MaxResourceBytes = 64 << 20
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 16 << 30
	}
	if o.MaxRatio <= 0 {
		o.MaxRatio = 400
	}
	return o
}

// Result says what an object was.
type Result struct {
	// Format is the decoder's name with the compression, "otlp-proto+gzip" for example.
	Format string
	Signal lake.Signal
	// Problem is what was wrong with content whose rows stand nevertheless. Empty: nothing.
	Problem string
}

// Errors that say what content was.
var (
	// ErrTruncated is content that ends too early. The rows before its end were given.
	ErrTruncated = errors.New("content is truncated")
	// ErrUnsupported is content of a known format or signal that this release does not ingest.
	ErrUnsupported = fault.New(fault.Unsupported, "content is of a kind that is not supported by this release")
)

// Decode finds the format of the content and gives its rows to the sink of its signal. Its errors are of three kinds: the sink's and the reader's
// own, as they are; ErrUnsupported; and fault.Invalid for content that cannot be decoded.
func Decode(content io.Reader, o Options, to Sinks) (Result, error) {
	o = o.withDefaults()
	src := &source{r: content}
	r, err := newReader(src, o)
	if err != nil {
		return Result{}, src.cause(err)
	}
	defer r.close()
	head, err := r.head(o.Hint)
	if err != nil {
		return Result{Format: r.compression()}, src.cause(err)
	}
	decoder, signal, err := choose(head, o.Table)
	if err != nil {
		return Result{Format: r.compression()}, err
	}
	result := Result{Format: decoder.Name() + r.suffix(), Signal: signal}
	if !to.take(signal) {
		return result, fmt.Errorf("signal not supported by this release: %s: %w", signal, ErrUnsupported)
	}
	o.Signal = signal
	err = src.cause(decoder.Decode(r, o, to))
	if errors.Is(err, ErrTruncated) {
		result.Problem, err = err.Error(), nil
	}
	if err == nil && result.Problem == "" {
		result.Problem = r.problem()
	}
	return result, err
}

// NewReader opens content for one decoder, without a search for its format. It has no limits on growth.
func NewReader(content io.Reader) (*Reader, error) {
	return newReader(&source{r: content}, Options{MaxBytes: math.MaxInt64, MaxRatio: math.MaxInt32})
}

func choose(head Head, table *Table) (Decoder, lake.Signal, error) {
	name := foreign(head.Bytes)
	for _, d := range Decoders(table) {
		if signal, ok := d.Sniff(head); ok && (name == "" || name == d.Name()) {
			return d, signal, nil
		}
	}
	if name != "" {
		return nil, 0, fmt.Errorf("format not supported by this release: %s: %w", name, ErrUnsupported)
	}
	return nil, 0, fault.New(fault.Invalid, "content is of no known format")
}

// IsUnsupported reports whether an error of Decode means content that a later release may ingest.
func IsUnsupported(err error) bool { return errors.Is(err, ErrUnsupported) }

// source is the stored content. It remembers its own error, so that a broken connection is not taken for broken content.
type source struct {
	r   io.Reader
	err error
	n   int64
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// cause prefers the source's own error to what it led to.
func (s *source) cause(err error) error {
	if s.err != nil {
		return s.err
	}
	return err
}
