// SPDX-License-Identifier: AGPL-3.0-only

package host

import (
	"fmt"
	"strings"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/internal/strictyaml"
)

// settings are the "path=value" entries of the command line. Each must find the struct that has its field.
type settings struct {
	entries []setting
}

type setting struct {
	path, value string
	used        bool
}

func newSettings(entries []string) *settings {
	s := &settings{}
	for _, entry := range entries {
		path, value, _ := strings.Cut(entry, "=")
		s.entries = append(s.entries, setting{path: path, value: value})
	}
	return s
}

// apply sets the fields of one section. The empty section is the process's own settings: all that is no service's.
func (s *settings) apply(section string, into any) error {
	for i := range s.entries {
		entry := &s.entries[i]
		path := entry.path
		if first, rest, _ := strings.Cut(path, "."); isSection(first) {
			if first != section {
				continue
			}
			path = rest
		} else if section != "" {
			continue
		}
		if err := strictyaml.Set(into, path, entry.value); err != nil {
			return fmt.Errorf("--set %s: %w", entry.path, err)
		}
		entry.used = true
	}
	return nil
}

// unused is an error that names an entry of a service that is not in this process.
func (s *settings) unused() error {
	for _, entry := range s.entries {
		if !entry.used {
			return fault.New(fault.Invalid, "--set %s: that service is not in this process", entry.path)
		}
	}
	return nil
}

func isSection(name string) bool {
	for _, section := range Sections() {
		if section == name {
			return true
		}
	}
	return false
}
