// SPDX-License-Identifier: AGPL-3.0-only

package postgres

import (
	"fmt"
	"os"
	"syscall"
)

// endWithParent asks the kernel for a fast shutdown of the server when we die.
func endWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGINT, Setpgid: true}
}

// serves reports whether a process is a server on a data directory: a server's working directory is its data.
func serves(pid int, data string) bool {
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	return err == nil && cwd == data
}
