// SPDX-License-Identifier: AGPL-3.0-only

//go:build !linux

package postgres

import "syscall"

// endWithParent starts the server in its own process group. This system has no death signal: the next start ends an orphan.
func endWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// serves trusts the server's own pid file.
func serves(int, string) bool { return true }
