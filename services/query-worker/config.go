// SPDX-License-Identifier: AGPL-3.0-only

package queryworker

import (
	"cmp"
	"os"
	"path/filepath"
	"runtime"
)

// Config is what users set of a query worker. Sizes are in bytes; every zero value stands for its default.
type Config struct {
	// Dir holds the segment cache and what DuckDB spills. Empty: lakerunner-worker in the directory for temporary files.
	Dir string `yaml:"dir"`
	// CacheSize bounds the segments on disk. Zero: 20 GiB.
	CacheSize int64 `yaml:"cache_size"`
	// CatalogueMemory bounds the sidecars that are kept parsed. Zero: 256 MiB.
	CatalogueMemory int64 `yaml:"catalogue_memory"`
	// ColumnMemory bounds the columns of row groups that are kept decompressed between scans. Zero: 256 MiB. Negative: none are.
	ColumnMemory int64 `yaml:"column_memory"`
	// EngineMemory is DuckDB's limit; the process takes up to a quarter of it more. Zero: 1 GiB.
	EngineMemory int64 `yaml:"engine_memory"`
	// SpillSize bounds what DuckDB writes to disk when memory does not do. Zero: 10 GiB.
	SpillSize int64 `yaml:"spill_size"`
	// Threads of DuckDB, and of a scan. Zero: as many as there are processors.
	Threads int `yaml:"threads"`
	// Scans is how many run at once. Zero: 8.
	Scans int `yaml:"scans"`
	// Queue is how many more wait; those beyond are sent elsewhere. Zero: 64.
	Queue int `yaml:"queue"`
	// ScanMemory is the most that one scan holds outside of DuckDB: lines, samples, series. Zero: 512 MiB.
	ScanMemory int64 `yaml:"scan_memory"`
	// Memory is what running scans count against, each with ScanMemory. Zero: ScanMemory times Scans.
	Memory int64 `yaml:"memory"`
	// MaxSeries is the most series of one answer. Zero: 200,000.
	MaxSeries int `yaml:"max_series"`
	// MaxSamples is the most metric samples that one scan reads, or that an evaluation holds at once, unless the request says less. Zero: 50,000,000.
	MaxSamples int64 `yaml:"max_samples"`
	// MaxFetch is the most that one scan reads from the object store, unless the request says less. Zero: any.
	MaxFetch int64 `yaml:"max_fetch"`
	// RangedFrom is the size of a segment from which parts of it are fetched when a query needs few of its rows. Zero: 32 MiB.
	RangedFrom int64 `yaml:"ranged_from"`
}

func (c Config) withDefaults() Config {
	c.Dir = cmp.Or(c.Dir, filepath.Join(os.TempDir(), "lakerunner-worker"))
	c.CacheSize = cmp.Or(c.CacheSize, 20<<30)
	c.CatalogueMemory = cmp.Or(c.CatalogueMemory, 256<<20)
	c.ColumnMemory = cmp.Or(c.ColumnMemory, 256<<20)
	c.EngineMemory = cmp.Or(c.EngineMemory, 1<<30)
	c.SpillSize = cmp.Or(c.SpillSize, 10<<30)
	c.Threads = cmp.Or(c.Threads, runtime.GOMAXPROCS(0))
	c.Scans = cmp.Or(c.Scans, 8)
	c.Queue = cmp.Or(c.Queue, 64)
	c.ScanMemory = cmp.Or(c.ScanMemory, 512<<20)
	c.Memory = cmp.Or(c.Memory, c.ScanMemory*int64(c.Scans))
	c.MaxSeries = cmp.Or(c.MaxSeries, 200_000)
	c.MaxSamples = cmp.Or(c.MaxSamples, 50_000_000)
	c.RangedFrom = cmp.Or(c.RangedFrom, 32<<20)
	return c
}
