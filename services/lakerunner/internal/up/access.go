// SPDX-License-Identifier: AGPL-3.0-only

package up

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Access is what a client on the same machine needs to know of a running `lakerunner up`. It is kept in the data directory, readable by its owner alone.
type Access struct {
	Address string `json:"address"` // gRPC
	HTTP    string `json:"http"`    // base URL
	APIKey  string `json:"api_key"` // of the default organization: query, ingest and admin
	// Database is the URL of index and configdb, for `lakerunner doctor`.
	Database string `json:"database"`
}

const accessFile = "access.json"

// ReadAccess reads the access file of a data directory; found is false when there is none.
func ReadAccess(data string) (access Access, found bool, err error) {
	found, err = readJSON(filepath.Join(data, accessFile), &access)
	return access, found, err
}

func writeAccess(data string, access Access) error {
	return writeJSON(filepath.Join(data, accessFile), access)
}

// readJSON reads a file; found is false when it does not exist, or when it belongs to somebody else.
func readJSON(path string, into any) (found bool, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read %s: %w", path, err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		return false, fmt.Errorf("read %s: %w; remove the file and start `lakerunner up` again", path, err)
	}
	return true, nil
}

// writeJSON replaces a file atomically. Only its owner can read it.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return writeFile(path, append(b, '\n'))
}

func writeFile(path string, content []byte) error {
	temporary := path + ".new"
	if err := os.WriteFile(temporary, content, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
