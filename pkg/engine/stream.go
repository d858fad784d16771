// SPDX-License-Identifier: AGPL-3.0-only

package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	duckdb "github.com/duckdb/duckdb-go-bindings"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// chunksPerBatch chunks of at most 2048 rows make one record batch.
const chunksPerBatch = 8

// interruptEvery is how often a query whose context has ended is interrupted: DuckDB forgets an interrupt that comes before it begins.
const interruptEvery = 2 * time.Millisecond

// Stream is the answer of one query. It is not safe for concurrent use.
type Stream struct {
	ctx       context.Context //nolint:containedctx // a stream lives as long as its query's context
	conn      duckdb.Connection
	statement duckdb.PreparedStatement
	result    duckdb.Result
	options   duckdb.ArrowOptions
	schema    *arrow.Schema
	finished  bool

	stop    chan struct{}
	watcher sync.WaitGroup
}

// Query begins a query; args stand for its ? or $1, $2, ...: nil, bool, int, int32, int64, uint64, float64, string, []byte, []int64 and []string
// (lists), time.Time. The end of ctx stops the query. The stream must be closed.
func (e *Engine) Query(ctx context.Context, sql string, args ...any) (*Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, contextFault(err)
	}
	s := &Stream{ctx: ctx, stop: make(chan struct{})}
	if duckdb.Connect(e.db, &s.conn) == duckdb.StateError {
		return nil, fault.New(fault.Internal, "connect to DuckDB")
	}
	s.watcher.Go(s.watch)
	if err := s.begin(sql, args); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// watch interrupts the query from the end of the context to the end of the stream.
func (s *Stream) watch() {
	select {
	case <-s.stop:
		return
	case <-s.ctx.Done():
	}
	ticker := time.NewTicker(interruptEvery)
	defer ticker.Stop()
	for {
		duckdb.Interrupt(s.conn)
		select {
		case <-s.stop:
			return
		case <-ticker.C:
		}
	}
}

func (s *Stream) begin(sql string, args []any) error {
	if duckdb.Prepare(s.conn, sql, &s.statement) == duckdb.StateError {
		message := duckdb.PrepareError(s.statement)
		return s.fault(duckdb.ErrorTypeInvalid, message)
	}
	for i, arg := range args {
		if err := bind(s.statement, duckdb.IdxT(i+1), arg); err != nil {
			return fmt.Errorf("parameter %d: %w", i+1, err)
		}
	}
	if duckdb.ExecutePreparedStreaming(s.statement, &s.result) == duckdb.StateError {
		return s.fault(duckdb.ResultErrorType(&s.result), duckdb.ResultError(&s.result))
	}
	s.options = duckdb.ResultGetArrowOptions(&s.result)
	var err error
	s.schema, err = arrowSchema(s.options, &s.result)
	return err
}

// fault makes an error of DuckDB's message. An interrupt is the context's doing.
func (s *Stream) fault(t duckdb.ErrorType, message string) error {
	kind := kindOf(t, message)
	if kind == fault.Canceled && s.ctx.Err() != nil {
		return contextFault(s.ctx.Err())
	}
	return fault.New(kind, "DuckDB: %s", message)
}

func contextFault(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fault.Wrap(fault.Timeout, err)
	}
	return fault.Wrap(fault.Canceled, err)
}

// Schema returns the schema of the batches.
func (s *Stream) Schema() *arrow.Schema { return s.schema }

// Next returns the next batch, of up to 16384 rows, and io.EOF after the last. The batch is the caller's to release; it stays valid when the
// stream is closed.
func (s *Stream) Next() (arrow.RecordBatch, error) {
	if s.finished {
		return nil, io.EOF
	}
	var chunks []arrow.RecordBatch
	defer func() { release(chunks) }()
	for len(chunks) < chunksPerBatch {
		chunk, err := s.fetch()
		if errors.Is(err, io.EOF) {
			s.finished = true
			break
		}
		if err != nil {
			s.finished = true
			return nil, err
		}
		chunks = append(chunks, chunk)
	}
	if len(chunks) == 0 {
		return nil, io.EOF
	}
	return concatenate(s.schema, chunks)
}

// fetch returns the next chunk, whose memory is DuckDB's until it is released.
func (s *Stream) fetch() (arrow.RecordBatch, error) {
	if err := s.ctx.Err(); err != nil {
		return nil, contextFault(err)
	}
	chunk := duckdb.FetchChunk(s.result)
	if chunk.Ptr == nil {
		if message := duckdb.ResultError(&s.result); message != "" {
			return nil, s.fault(duckdb.ResultErrorType(&s.result), message)
		}
		return nil, s.end()
	}
	defer duckdb.DestroyDataChunk(&chunk)
	if duckdb.DataChunkGetSize(chunk) == 0 {
		return nil, s.end()
	}
	return arrowChunk(s.options, s.schema, chunk)
}

// end tells a query that has no more rows from one that was interrupted and says nothing of it.
func (s *Stream) end() error {
	if err := s.ctx.Err(); err != nil {
		return contextFault(err)
	}
	return io.EOF
}

// Close ends the query, if it has not ended, and frees what it holds.
func (s *Stream) Close() {
	if s.conn.Ptr == nil {
		return
	}
	close(s.stop)
	s.watcher.Wait()
	s.finished = true
	duckdb.DestroyArrowOptions(&s.options)
	duckdb.DestroyResult(&s.result)
	duckdb.DestroyPrepare(&s.statement)
	duckdb.Disconnect(&s.conn)
}

func bind(statement duckdb.PreparedStatement, at duckdb.IdxT, arg any) error {
	var state duckdb.State
	switch v := arg.(type) {
	case nil:
		state = duckdb.BindNull(statement, at)
	case bool:
		state = duckdb.BindBoolean(statement, at, v)
	case int:
		state = duckdb.BindInt64(statement, at, int64(v))
	case int32:
		state = duckdb.BindInt32(statement, at, v)
	case int64:
		state = duckdb.BindInt64(statement, at, v)
	case uint64:
		state = duckdb.BindUInt64(statement, at, v)
	case float64:
		state = duckdb.BindDouble(statement, at, v)
	case string:
		state = duckdb.BindVarcharLength(statement, at, v, duckdb.IdxT(len(v)))
	case []byte:
		state = duckdb.BindBlob(statement, at, v)
	case time.Time:
		state = duckdb.BindTimestampTZ(statement, at, duckdb.NewTimestamp(v.UnixMicro()))
	case []int64:
		state = bindList(statement, at, duckdb.TypeBigInt, v, duckdb.CreateInt64)
	case []string:
		state = bindList(statement, at, duckdb.TypeVarchar, v, func(s string) duckdb.Value {
			return duckdb.CreateVarcharLength(s, duckdb.IdxT(len(s)))
		})
	default:
		return fault.New(fault.Internal, "cannot bind a %T", arg)
	}
	if state == duckdb.StateError {
		return fault.New(fault.Invalid, "DuckDB: %s", duckdb.PrepareError(statement))
	}
	return nil
}

func bindList[T any](statement duckdb.PreparedStatement, at duckdb.IdxT, element duckdb.Type, list []T, create func(T) duckdb.Value) duckdb.State {
	of := duckdb.CreateLogicalType(element)
	defer duckdb.DestroyLogicalType(&of)
	values := make([]duckdb.Value, len(list))
	for i, v := range list {
		values[i] = create(v)
	}
	defer func() {
		for i := range values {
			duckdb.DestroyValue(&values[i])
		}
	}()
	value := duckdb.CreateListValue(of, values)
	defer duckdb.DestroyValue(&value)
	return duckdb.BindValue(statement, at, value)
}
