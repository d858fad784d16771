// SPDX-License-Identifier: AGPL-3.0-only

package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	duckdb "github.com/duckdb/duckdb-go-bindings"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// Config sets what DuckDB may use.
type Config struct {
	// Dir is the directory that queries may read files of. It is created if it does not exist. Spilled data goes to its
	// subdirectory "spill".
	Dir string
	// MemoryLimit is DuckDB's own, in bytes; its process takes up to a quarter more. 0: 1 GiB.
	MemoryLimit int64
	// MaxSpill bounds what queries may spill to disk, in bytes. 0: 10 GiB.
	MaxSpill int64
	// Threads that all queries together compute with. 0: as many as the machine has.
	Threads int
}

// Engine is an open DuckDB without tables. It is safe for concurrent use.
type Engine struct {
	db duckdb.Database
}

// Open starts DuckDB.
func Open(ctx context.Context, c Config) (*Engine, error) {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, err
	}
	spill := filepath.Join(dir, "spill")
	if err := os.MkdirAll(spill, 0o755); err != nil {
		return nil, fmt.Errorf("make the spill directory: %w", err)
	}
	e := &Engine{}
	if err := e.open(c, spill); err != nil {
		return nil, err
	}
	if err := e.lock(ctx, dir); err != nil {
		e.Close()
		return nil, fmt.Errorf("lock DuckDB to %s: %w", dir, err)
	}
	return e, nil
}

func (e *Engine) open(c Config, spill string) error {
	options := []struct{ name, value string }{
		{"memory_limit", bytesOption(c.MemoryLimit, 1<<30)},
		{"max_temp_directory_size", bytesOption(c.MaxSpill, 10<<30)},
		{"temp_directory", spill},
		{"autoinstall_known_extensions", "false"},
		{"autoload_known_extensions", "false"},
		// Only ORDER BY orders rows; keeping the order of files would cost memory and parallelism.
		{"preserve_insertion_order", "false"},
	}
	if c.Threads > 0 {
		options = append(options, struct{ name, value string }{"threads", strconv.Itoa(c.Threads)})
	}
	var config duckdb.Config
	if duckdb.CreateConfig(&config) == duckdb.StateError {
		return fault.New(fault.Internal, "make a DuckDB configuration")
	}
	defer duckdb.DestroyConfig(&config)
	for _, o := range options {
		if duckdb.SetConfig(config, o.name, o.value) == duckdb.StateError {
			return fault.New(fault.Invalid, "DuckDB does not take %s = %q", o.name, o.value)
		}
	}
	var message string
	if duckdb.OpenExt("", &e.db, config, &message) == duckdb.StateError {
		duckdb.Close(&e.db)
		return fault.New(fault.Invalid, "open DuckDB: %s", message)
	}
	return nil
}

func bytesOption(n, otherwise int64) string {
	if n <= 0 {
		n = otherwise
	}
	return strconv.FormatInt(n, 10) + "B"
}

// lock confines DuckDB to a directory, for good.
func (e *Engine) lock(ctx context.Context, dir string) error {
	for _, statement := range []string{
		"SET GLOBAL parquet_metadata_cache = true",
		"SET allowed_directories = [" + Quote(dir+string(filepath.Separator)) + "]",
		"SET enable_external_access = false",
		"SET lock_configuration = true",
	} {
		s, err := e.Query(ctx, statement)
		if err != nil {
			return err
		}
		s.Close()
	}
	return nil
}

// Close stops DuckDB. All streams must be closed before.
func (e *Engine) Close() { duckdb.Close(&e.db) }

// Quote makes an SQL string literal.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// QuoteName makes an SQL identifier.
func QuoteName(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// kindOf says which kind of fault an error of DuckDB is. Errors of a running stream come without a type, but all messages begin with it.
func kindOf(t duckdb.ErrorType, message string) fault.Kind {
	for _, k := range []struct {
		kind   fault.Kind
		types  []duckdb.ErrorType
		prefix string
	}{
		{fault.Exhausted, []duckdb.ErrorType{duckdb.ErrorTypeOutOfMemory}, "Out of Memory"},
		{fault.Canceled, []duckdb.ErrorType{duckdb.ErrorTypeInterrupt}, "INTERRUPT"},
		{fault.Denied, []duckdb.ErrorType{duckdb.ErrorTypePermission}, "Permission"},
		{fault.Unavailable, []duckdb.ErrorType{duckdb.ErrorTypeErrorIO}, "IO Error"},
		{fault.Invalid, []duckdb.ErrorType{duckdb.ErrorTypeParser, duckdb.ErrorTypeSyntax}, "Parser Error"},
		{fault.Invalid, []duckdb.ErrorType{duckdb.ErrorTypeBinder}, "Binder Error"},
		{fault.Invalid, []duckdb.ErrorType{duckdb.ErrorTypeCatalog}, "Catalog Error"},
		{fault.Invalid, []duckdb.ErrorType{duckdb.ErrorTypeConversion, duckdb.ErrorTypeOutOfRange}, "Conversion Error"},
		{fault.Invalid, []duckdb.ErrorType{duckdb.ErrorTypeInvalidInput}, "Invalid Input Error"},
	} {
		for _, of := range k.types {
			if t == of {
				return k.kind
			}
		}
		if strings.HasPrefix(message, k.prefix) {
			return k.kind
		}
	}
	return fault.Internal
}
