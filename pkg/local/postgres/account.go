// SPDX-License-Identifier: AGPL-3.0-only

package postgres

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the user that the server runs as; nil: the one that we are.
type account struct{ uid, gid int }

// serverAccount chooses a user to drop to when we are root.
func serverAccount() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.Atoi(u.Gid)
		if err != nil {
			return nil, err
		}
		return &account{uid: uid, gid: gid}, nil
	}
	return &account{uid: 65534, gid: 65534}, nil // the numbers of nobody where no user has that name
}

// processAttributes make a command run as the account and end with the thread that started it.
func (a *account) processAttributes() *syscall.SysProcAttr {
	attributes := endWithParent()
	if a != nil {
		attributes.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return attributes
}

// makeReachable lets the account step through a directory's path: it adds the permission to search, never one to read.
func (a *account) makeReachable(dir string) error {
	if a == nil {
		return nil
	}
	for _, d := range pathTo(dir) {
		info, err := os.Stat(d)
		if err != nil {
			return err
		}
		owner, known := info.Sys().(*syscall.Stat_t)
		owned := known && int(owner.Uid) == a.uid && info.Mode()&0o100 != 0
		if owned || info.Mode()&0o001 != 0 {
			continue
		}
		if err := os.Chmod(d, info.Mode().Perm()|0o001); err != nil {
			return fmt.Errorf("let the server's user reach %s: %w", dir, err)
		}
	}
	return nil
}

// pathTo lists a directory and all above it, the root first.
func pathTo(dir string) []string {
	parent := filepath.Dir(dir)
	if parent == dir {
		return []string{dir}
	}
	return append(pathTo(parent), dir)
}

// mkdir makes a directory of the account's own.
func (a *account) mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return a.own(dir)
}

// writeSecret puts a secret into a file that the account alone can read, and returns its name.
func (a *account) writeSecret(dir, secret string) (string, error) {
	f, err := os.CreateTemp(dir, "secret-*")
	if err != nil {
		return "", err
	}
	defer f.Close()
	if _, err := f.WriteString(secret); err != nil {
		return "", err
	}
	return f.Name(), a.own(f.Name())
}

func (a *account) own(name string) error {
	if a == nil {
		return nil
	}
	return os.Chown(name, a.uid, a.gid)
}
