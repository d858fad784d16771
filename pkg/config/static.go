// SPDX-License-Identifier: AGPL-3.0-only

package config

// Static returns a source that never changes, from a YAML document. It sees no environment, so the document cannot refer to any.
func Static(document string) (Source, error) {
	f, err := parseForm("document", []byte(document), nil)
	if err != nil {
		return nil, err
	}
	snapshot, err := build([]layer{{name: "document", form: f}}, nil)
	if err != nil {
		return nil, err
	}
	return static{snapshot}, nil
}

type static struct{ snapshot *Snapshot }

func (s static) Current() *Snapshot { return s.snapshot }
