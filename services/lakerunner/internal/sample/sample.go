// SPDX-License-Identifier: AGPL-3.0-only

// Package sample makes realistic telemetry for a first look and for tests: the logs of a small web shop, as OTLP, in objects that
// look like those of an OpenTelemetry collector's S3 exporter.
//
// It is deterministic: the same Options give the same bytes, so tests know every row. It is no load generator and no benchmark
// corpus; it keeps all rows in memory.
package sample

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"math/rand/v2"
	"time"

	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/protobuf/proto"
)

// Options say what to make. The zero value of an optional field takes its default.
type Options struct {
	Seed         uint64
	Organization string        // part of the keys; default "default"
	Collector    string        // part of the keys; default "shop"
	End          time.Time     // time after the last row
	Length       time.Duration // time covered; default 5 minutes
	Lines        int           // rows altogether; default 6,000
	Objects      int           // objects they are spread over, in time order; default 10
}

// Object is one source object.
type Object struct {
	Key  string
	Body []byte // gzipped OTLP protobuf
	Rows []Row
}

// Row is what a test needs to know of one log record.
type Row struct {
	Time    time.Time
	Service string
	Level   string
	Line    string
}

// Objects makes the objects.
func Objects(o Options) ([]Object, error) {
	o = o.withDefaults()
	g := newShop(o.Seed)
	objects := make([]Object, 0, o.Objects)
	for i := range o.Objects {
		object, err := makeObject(g, o, i)
		if err != nil {
			return nil, err
		}
		objects = append(objects, object)
	}
	return objects, nil
}

func (o Options) withDefaults() Options {
	if o.Organization == "" {
		o.Organization = "default"
	}
	if o.Collector == "" {
		o.Collector = "shop"
	}
	if o.Length == 0 {
		o.Length = 5 * time.Minute
	}
	if o.Lines == 0 {
		o.Lines = 6000
	}
	if o.Objects == 0 {
		o.Objects = 10
	}
	return o
}

// makeObject makes the i-th object: the i-th part of the rows and of the time.
func makeObject(g *shop, o Options, i int) (Object, error) {
	first, last := o.Lines*i/o.Objects, o.Lines*(i+1)/o.Objects
	batch := newBatch(g)
	rows := make([]Row, 0, last-first)
	for n := first; n < last; n++ {
		at := o.End.Add(-o.Length + o.Length*time.Duration(n)/time.Duration(o.Lines))
		rows = append(rows, batch.add(at))
	}
	body, err := Compress(batch.data())
	if err != nil {
		return Object{}, err
	}
	start := o.End.Add(-o.Length + o.Length*time.Duration(i)/time.Duration(o.Objects)).UTC()
	key := fmt.Sprintf("otel-raw/%s/%s/%s/logs_%d.binpb.gz", o.Organization, o.Collector, start.Format("year=2006/month=01/day=02/hour=15/minute=04"), start.UnixNano())
	return Object{Key: key, Body: body, Rows: rows}, nil
}

// Compress encodes OTLP logs as a collector's S3 exporter does: protobuf, gzipped.
func Compress(data *logspb.LogsData) ([]byte, error) {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("encode sample logs: %w", err)
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(raw); err != nil {
		return nil, fmt.Errorf("compress sample logs: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("compress sample logs: %w", err)
	}
	return out.Bytes(), nil
}

// Rows counts the rows of objects.
func Rows(objects []Object) int {
	n := 0
	for _, o := range objects {
		n += len(o.Rows)
	}
	return n
}

func newRandom(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x6c616b6572756e6e)) }
