// SPDX-License-Identifier: AGPL-3.0-only

package bench

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/klauspost/compress/gzip"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

// corpusObjects lists the corpus's objects in order.
func corpusObjects(corpus string) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(corpus, "otlp", "*.binpb.gz"))
	if err == nil && len(paths) == 0 {
		err = fmt.Errorf("no objects in %s/otlp", corpus)
	}
	return paths, err
}

// decodeFloor is the CPU time that gunzip and OTLP decoding alone take, on one thread.
func decodeFloor(corpus string, decode func(raw []byte) (rows int64, err error)) (cpu time.Duration, rows, bytes int64, err error) {
	paths, err := corpusObjects(corpus)
	if err != nil {
		return 0, 0, 0, err
	}
	before := processCPU()
	for _, path := range paths {
		n, size, err := decodeObject(path, decode)
		if err != nil {
			return 0, 0, 0, fmt.Errorf("decode %s: %w", path, err)
		}
		rows += n
		bytes += size
	}
	return processCPU() - before, rows, bytes, nil
}

func decodeObject(path string, decode func([]byte) (int64, error)) (rows, bytes int64, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = file.Close() }()
	z, err := gzip.NewReader(file)
	if err != nil {
		return 0, 0, err
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		return 0, 0, err
	}
	rows, err = decode(raw)
	return rows, int64(len(raw)), err
}

func decodeLogs(raw []byte) (rows int64, err error) {
	request := plogotlp.NewExportRequest()
	err = request.UnmarshalProto(raw)
	return int64(request.Logs().LogRecordCount()), err
}

func decodeMetrics(raw []byte) (points int64, err error) {
	request := pmetricotlp.NewExportRequest()
	err = request.UnmarshalProto(raw)
	return int64(request.Metrics().DataPointCount()), err
}

// processCPU is the user and system time of this process so far.
func processCPU() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return cpuOf(&usage)
}

func cpuOf(usage *syscall.Rusage) time.Duration {
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// dropPageCache empties the kernel's cache of files; it reports false where that is not permitted.
func dropPageCache() bool {
	syscall.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0o200) == nil
}
