// SPDX-License-Identifier: AGPL-3.0-only

package engine

/*
#include <stdint.h>
#include <stdlib.h>

// Declared here, because the bindings hide them behind a build tag that every user of this package would have to set. All DuckDB handles are
// pointers.
extern void *duckdb_to_arrow_schema(void *options, void **types, const char **names, uint64_t count, void *schema);
extern void *duckdb_data_chunk_to_arrow(void *options, void *chunk, void *array);
*/
import "C"

import (
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/cdata"
	"github.com/apache/arrow-go/v18/arrow/memory"
	duckdb "github.com/duckdb/duckdb-go-bindings"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// arrowSchema returns the Arrow schema of a result.
func arrowSchema(options duckdb.ArrowOptions, result *duckdb.Result) (*arrow.Schema, error) {
	n := int(duckdb.ColumnCount(result))
	types := cPointers(n)
	defer C.free(unsafe.Pointer(unsafe.SliceData(types)))
	names := cPointers(n)
	defer C.free(unsafe.Pointer(unsafe.SliceData(names)))
	for i := range n {
		t := duckdb.ColumnLogicalType(result, duckdb.IdxT(i))
		defer duckdb.DestroyLogicalType(&t)
		types[i] = t.Ptr
		name := C.CString(duckdb.ColumnName(result, duckdb.IdxT(i)))
		defer C.free(unsafe.Pointer(name))
		names[i] = unsafe.Pointer(name)
	}
	out := (*cdata.CArrowSchema)(C.calloc(1, C.size_t(unsafe.Sizeof(cdata.CArrowSchema{}))))
	defer C.free(unsafe.Pointer(out))
	failure := duckdb.ErrorData{Ptr: C.duckdb_to_arrow_schema(
		options.Ptr, &types[0], (**C.char)(unsafe.Pointer(&names[0])), C.uint64_t(n), unsafe.Pointer(out))}
	if err := check(failure); err != nil {
		return nil, err
	}
	defer cdata.ReleaseCArrowSchema(out)
	return cdata.ImportCArrowSchema(out)
}

// cPointers makes a zeroed array in C memory, which may hold pointers of either side; it has one element at least.
func cPointers(n int) []unsafe.Pointer {
	n = max(n, 1)
	return unsafe.Slice((*unsafe.Pointer)(C.calloc(C.size_t(n), C.size_t(unsafe.Sizeof(uintptr(0))))), n)
}

// arrowChunk makes a record batch of a chunk. Its memory is C's, and lives until the batch is released.
func arrowChunk(options duckdb.ArrowOptions, schema *arrow.Schema, chunk duckdb.DataChunk) (arrow.RecordBatch, error) {
	out := (*cdata.CArrowArray)(C.calloc(1, C.size_t(unsafe.Sizeof(cdata.CArrowArray{}))))
	defer C.free(unsafe.Pointer(out))
	failure := duckdb.ErrorData{Ptr: C.duckdb_data_chunk_to_arrow(options.Ptr, chunk.Ptr, unsafe.Pointer(out))}
	if err := check(failure); err != nil {
		return nil, err
	}
	defer cdata.ReleaseCArrowArray(out)
	return cdata.ImportCRecordBatchWithSchema(out, schema)
}

func check(failure duckdb.ErrorData) error {
	if failure.Ptr == nil {
		return nil
	}
	defer duckdb.DestroyErrorData(&failure)
	if !duckdb.ErrorDataHasError(failure) {
		return nil
	}
	message := duckdb.ErrorDataMessage(failure)
	return fault.New(kindOf(duckdb.ErrorDataErrorType(failure), message), "DuckDB: %s", message)
}

// concatenate copies chunks into one batch of Go's memory.
func concatenate(schema *arrow.Schema, chunks []arrow.RecordBatch) (arrow.RecordBatch, error) {
	columns := make([]arrow.Array, schema.NumFields())
	defer func() {
		for _, c := range columns {
			if c != nil {
				c.Release()
			}
		}
	}()
	rows := int64(0)
	for _, chunk := range chunks {
		rows += chunk.NumRows()
	}
	for i := range columns {
		parts := make([]arrow.Array, len(chunks))
		for j, chunk := range chunks {
			parts[j] = chunk.Column(i)
		}
		column, err := array.Concatenate(parts, memory.DefaultAllocator)
		if err != nil {
			return nil, fault.Wrap(fault.Internal, err)
		}
		columns[i] = column
	}
	return array.NewRecordBatch(schema, columns, rows), nil
}

func release(chunks []arrow.RecordBatch) {
	for _, c := range chunks {
		c.Release()
	}
}
