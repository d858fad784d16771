// SPDX-License-Identifier: AGPL-3.0-only

package up

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"text/template"
	"time"

	"github.com/lakerunner/lakerunner/pkg/config"
)

// ConfigFile is the name of the configuration in the data directory.
const ConfigFile = "lakerunner.yaml"

// Organization is the one that a fresh `lakerunner up` has.
const Organization = "default"

const (
	settingsFile = "settings.json"

	localBucket = "lakerunner"
)

// settings are made at the first start and kept.
type settings struct {
	APIKey       string    `json:"api_key"`
	WebhookToken string    `json:"webhook_token"`
	S3AccessKey  string    `json:"s3_access_key"`
	S3SecretKey  string    `json:"s3_secret_key"`
	SampleEnd    time.Time `json:"sample_end"`    // of the sample's rows; zero: not begun
	SampleLoaded bool      `json:"sample_loaded"` // all of it can be queried
}

// loadSettings reads the settings, or makes them.
func loadSettings(data string) (settings, error) {
	var s settings
	found, err := readJSON(filepath.Join(data, settingsFile), &s)
	if err != nil {
		return s, err
	}
	if found && s.APIKey != "" {
		return s, nil
	}
	s = settings{APIKey: config.NewSecret(), WebhookToken: randomHex(16), S3AccessKey: "lakerunner", S3SecretKey: randomHex(20)}
	return s, s.save(data)
}

func (s settings) save(data string) error { return writeJSON(filepath.Join(data, settingsFile), s) }

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

// bucket is where objects are, and how to reach them.
type bucket struct {
	Provider, Name, Endpoint, Region, AccessKey, SecretKey string
	PathStyle                                              bool
	embedded                                               bool // this process serves it
}

// writeConfig writes the configuration of organization, bucket and key, and returns its path. It is written at each start: what a
// user changes belongs into configdb.
func writeConfig(data string, s settings, b bucket) (string, error) {
	var document bytes.Buffer
	hash := config.Hash(s.APIKey)
	err := configTemplate().Execute(&document, map[string]any{
		"Organization": Organization, "Bucket": b, "KeyHash": hex.EncodeToString(hash[:]),
	})
	if err != nil {
		return "", fmt.Errorf("write configuration: %w", err)
	}
	path := filepath.Join(data, ConfigFile)
	return path, writeFile(path, document.Bytes())
}

func configTemplate() *template.Template {
	return template.Must(template.New("config").Parse(`# Written by "lakerunner up" at each start. Change the configuration with "lakerunner config apply".
organizations:
  - id: {{ .Organization }}
    name: Default organization
storage_profiles:
  - name: local
    bucket: {{ printf "%q" .Bucket.Name }}
    organization: {{ .Organization }}
{{- with .Bucket.Provider }}
    provider: {{ . }}
{{- end }}
{{- with .Bucket.Endpoint }}
    endpoint: {{ printf "%q" . }}
{{- end }}
{{- with .Bucket.Region }}
    region: {{ printf "%q" . }}
{{- end }}
{{- if .Bucket.AccessKey }}
    access_key: {{ printf "%q" .Bucket.AccessKey }}
    secret_key: {{ printf "%q" .Bucket.SecretKey }}
{{- end }}
{{- if .Bucket.PathStyle }}
    path_style: true
{{- end }}
api_keys:
  - id: up
    organization: {{ .Organization }}
    scopes: [query, ingest, admin]
    sha256: {{ .KeyHash }}
    description: made by lakerunner up
`))
}
