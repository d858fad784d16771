// SPDX-License-Identifier: AGPL-3.0-only

package decode

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

const (
	maxLayers = 3
	// ratioFrom is the decompressed size from which MaxRatio counts: small content of one repeated line may shrink a lot.
	ratioFrom = 64 << 20
	// zstdWindow is the largest zstd window that is read; encoders use up to 8 MiB unless told otherwise.
	zstdWindow = 64 << 20
)

var (
	gzipMagic = []byte{0x1f, 0x8b}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
)

// foreignFormats are known by their first bytes and not read.
var foreignFormats = []struct{ name, magic string }{
	{"parquet", "PAR1"},
	{"arrow", "ARROW1"},
	{"avro", "Obj\x01"},
	{"bzip2", "BZh"},
	{"snappy", "\xff\x06\x00\x00sNaPpY"},
	{"zip", "PK\x03\x04"},
	{"xz", "\xfd7zXZ\x00"},
}

func foreign(head []byte) string {
	for _, f := range foreignFormats {
		if bytes.HasPrefix(head, []byte(f.magic)) {
			return f.name
		}
	}
	return ""
}

// Reader is decompressed content. Reading it past a truncated end gives ErrTruncated, past a limit fault.Invalid.
type Reader struct {
	*bufio.Reader
	in     *source
	layers []*layer
	limits Options
	total  int64
}

// layer is one compression.
type layer struct {
	name  string
	r     io.Reader
	close func()
	// rest is what a gzip member is followed by.
	rest *bufio.Reader
	// trailing says that something other than a gzip member followed one.
	trailing bool
	started  bool
}

func newReader(in *source, o Options) (*Reader, error) {
	r := &Reader{in: in, limits: o}
	compressed := bufio.NewReaderSize(in, 64<<10)
	for range maxLayers {
		l, err := newLayer(compressed)
		if err != nil {
			r.close()
			return nil, err
		}
		if l == nil {
			break
		}
		r.layers = append(r.layers, l)
		compressed = bufio.NewReaderSize(l, 64<<10)
	}
	if len(r.layers) == 0 {
		r.Reader = compressed
		return r, nil
	}
	r.Reader = bufio.NewReaderSize(limited{r: r, below: compressed}, 128<<10)
	return r, nil
}

// newLayer returns nil when the content is not compressed.
func newLayer(compressed *bufio.Reader) (*layer, error) {
	magic, err := compressed.Peek(len(zstdMagic))
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, ErrTruncated) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, gzipMagic):
		return newGzip(compressed)
	case bytes.HasPrefix(magic, zstdMagic):
		return newZstd(compressed)
	}
	return nil, nil
}

func newGzip(compressed *bufio.Reader) (*layer, error) {
	z, err := gzip.NewReader(compressed)
	if err != nil {
		return nil, fault.New(fault.Invalid, "read gzip header: %w", err)
	}
	z.Multistream(false)
	l := &layer{name: "gzip", rest: compressed, close: func() {}}
	l.r = readerFunc(func(p []byte) (int, error) { return l.readMembers(z, p) })
	return l, nil
}

// readMembers reads gzip member after gzip member. What follows the last one and is no member is ignored, and remembered.
func (l *layer) readMembers(z *gzip.Reader, p []byte) (int, error) {
	for {
		n, err := z.Read(p)
		if !errors.Is(err, io.EOF) || n > 0 {
			if errors.Is(err, io.EOF) {
				err = nil // asked again, it says so again
			}
			return n, err
		}
		next, err := l.rest.Peek(len(gzipMagic))
		if len(next) == 0 && errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		if !bytes.Equal(next, gzipMagic) {
			l.trailing = true
			return 0, io.EOF
		}
		if err := z.Reset(l.rest); err != nil {
			return 0, err
		}
		z.Multistream(false)
	}
}

func newZstd(compressed *bufio.Reader) (*layer, error) {
	z, err := zstd.NewReader(compressed,
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
	if err != nil {
		return nil, fault.New(fault.Invalid, "read zstd header: %w", err)
	}
	return &layer{name: "zstd", r: z, close: z.Close}, nil
}

func (l *layer) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.started = l.started || n > 0
	switch {
	case err == nil, err == io.EOF, errors.Is(err, ErrTruncated), fault.KindOf(err) == fault.Invalid:
		return n, err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return n, fmt.Errorf("%s: %w", l.name, ErrTruncated)
	}
	return n, fault.New(fault.Invalid, "%s content is broken: %w", l.name, err)
}

// limited refuses content that grows beyond the limits.
type limited struct {
	r     *Reader
	below io.Reader
}

func (l limited) Read(p []byte) (int, error) {
	n, err := l.below.Read(p)
	r := l.r
	r.total += int64(n)
	if r.total > r.limits.MaxBytes {
		return n, fault.New(fault.Invalid, "decompressed content exceeds %d bytes", r.limits.MaxBytes)
	}
	if r.total > ratioFrom && r.total > r.limits.MaxRatio*r.in.n {
		return n, fault.New(fault.Invalid, "content grows more than %d times when decompressed", r.limits.MaxRatio)
	}
	return n, err
}

// head peeks at the content without consuming it.
func (r *Reader) head(hint lake.Signal) (Head, error) {
	b, err := r.Peek(min(headSize, r.Size()))
	switch {
	case err == nil:
		return Head{Bytes: b, Hint: hint}, nil
	case errors.Is(err, io.EOF):
		return Head{Bytes: b, Whole: true, Hint: hint}, nil
	case errors.Is(err, ErrTruncated):
		if len(b) == 0 {
			return Head{}, fault.Wrap(fault.Invalid, err)
		}
		return Head{Bytes: b, Hint: hint}, nil
	}
	return Head{}, err
}

func (r *Reader) close() {
	for _, l := range r.layers {
		l.close()
	}
}

func (r *Reader) problem() string {
	for _, l := range r.layers {
		if l.trailing {
			return "what follows the last " + l.name + " member was ignored"
		}
	}
	return ""
}

// suffix names the compression, outermost last.
func (r *Reader) suffix() string {
	s := ""
	for i := len(r.layers) - 1; i >= 0; i-- {
		s += "+" + r.layers[i].name
	}
	return s
}

func (r *Reader) compression() string {
	if s := r.suffix(); s != "" {
		return s[1:]
	}
	return ""
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
