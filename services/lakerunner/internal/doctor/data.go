// SPDX-License-Identifier: AGPL-3.0-only

package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// enoughDisk is what the segment cache needs to be of use.
const enoughDisk = 2 << 30

// checkData checks the data directory of `lakerunner up`: that secrets are the owner's alone, and that there is room.
func (r *report) checkData(data string) {
	if data == "" {
		return
	}
	if _, err := os.Stat(data); errors.Is(err, fs.ErrNotExist) {
		r.add("data directory", Skipped, "", "%s does not exist; `lakerunner up` makes it", data)
		return
	}
	if open := readableByOthers(data); len(open) > 0 {
		r.add("data directory", Warning, "chmod 600 these files: they hold secrets", "others can read %s", strings.Join(open, ", "))
		return
	}
	var disk syscall.Statfs_t
	if err := syscall.Statfs(data, &disk); err != nil {
		r.add("data directory", Bad, "choose another with --data", "%v", err)
		return
	}
	if free := disk.Bavail * uint64(disk.Bsize); free < enoughDisk {
		r.add("data directory", Warning, "make room: segments are cached there", "%s has only %d MiB free", data, free>>20)
		return
	}
	r.add("data directory", Good, "", "secrets are readable by their owner alone, and there is room")
}

func readableByOthers(data string) []string {
	var open []string
	for _, name := range []string{"settings.json", "access.json", "lakerunner.yaml"} {
		path := filepath.Join(data, name)
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
			open = append(open, path)
		}
	}
	return open
}
