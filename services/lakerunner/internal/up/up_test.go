// SPDX-License-Identifier: AGPL-3.0-only

package up

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/config"
)

func TestSettings(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	first, err := loadSettings(data)
	if err != nil {
		t.Fatal(err)
	}

	t.Run("are made once and kept", func(t *testing.T) {
		t.Parallel()
		again, err := loadSettings(data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(first, again); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("are their owner's alone", func(t *testing.T) {
		t.Parallel()
		info, err := os.Stat(filepath.Join(data, settingsFile))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("got %v, %v", info.Mode(), err)
		}
	})
	t.Run("differ between data directories", func(t *testing.T) {
		t.Parallel()
		other, err := loadSettings(t.TempDir())
		if err != nil || other.APIKey == first.APIKey || other.S3SecretKey == first.S3SecretKey {
			t.Errorf("got %v, %v", other, err)
		}
	})
	t.Run("a broken file is named, with a remedy", func(t *testing.T) {
		t.Parallel()
		broken := t.TempDir()
		if err := os.WriteFile(filepath.Join(broken, settingsFile), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadSettings(broken); err == nil || !strings.Contains(err.Error(), "remove the file") {
			t.Errorf("got %v", err)
		}
	})
}

func TestConfiguration(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	s, err := loadSettings(data)
	if err != nil {
		t.Fatal(err)
	}
	path, err := writeConfig(data, s, bucket{Name: "lakerunner", Endpoint: "http://127.0.0.1:7482", Region: "us-east-1", AccessKey: "a", SecretKey: `"b`, PathStyle: true})
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	source, err := config.Static(string(document))
	if err != nil {
		t.Fatal(err)
	}
	identity, ok := source.Current().Authenticate(s.APIKey)
	if !ok || identity.Organization != Organization || !identity.Has(config.ScopeAdmin) {
		t.Errorf("the key opens %v, %v", identity, ok)
	}
	resolved := source.Current().Resolve("lakerunner", "otel-raw/default/shop/logs_1.binpb.gz")
	if resolved.Organization != Organization || resolved.SkipReason != "" {
		t.Errorf("the sample's objects are %+v", resolved)
	}
	if profile, _ := source.Current().Profile("lakerunner"); profile.Location.SecretKey != `"b` {
		t.Errorf("the secret came out as %q", profile.Location.SecretKey)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	t.Run("only loopback addresses are taken", func(t *testing.T) {
		t.Parallel()
		for address, good := range map[string]bool{"127.0.0.1:1": true, "[::1]:1": true, "localhost:1": true, "0.0.0.0:1": false, ":1": false, "10.0.0.1:1": false, "nonsense": false} {
			if _, err := (Options{HTTP: address}).withDefaults(); (err == nil) != good {
				t.Errorf("%s: %v", address, err)
			}
		}
	})
	t.Run("a taken port is named, with a remedy", func(t *testing.T) {
		t.Parallel()
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = listener.Close() }()
		address := listener.Addr().String()
		if err := checkPort("--http", "the HTTP server", address); err == nil || !strings.Contains(err.Error(), address) || !strings.Contains(err.Error(), "--http") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a data directory has one owner at a time", func(t *testing.T) {
		t.Parallel()
		data := t.TempDir()
		release, err := lock(data)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := lock(data); err == nil || !strings.Contains(err.Error(), "--data") {
			t.Errorf("got %v", err)
		}
		release()
		if release, err = lock(data); err != nil {
			t.Errorf("after the release: %v", err)
		}
		release()
	})
}

func TestWelcome(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	w := welcome{
		Access: Access{Address: "127.0.0.1:7481", HTTP: "http://127.0.0.1:7480", APIKey: "lr_key"}, Bucket: "lakerunner", Command: "lakerunner query '" + firstQuery + "'", Lines: []string{"first\n\tsecond"}, Rows: 6000,
		Chart: "lakerunner query --promql '" + firstMetricQuery + "'", Values: []string{"checkout 1.50"},
	}
	if err := w.print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"http://127.0.0.1:7480/loki", "lr_key", "basicAuthPassword: lr_key", firstQuery, "http://127.0.0.1:7480/prometheus\n", firstMetricQuery, "  checkout 1.50\n", "6000 rows", "  first\n  \tsecond"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
}

func TestFirstCommand(t *testing.T) {
	t.Parallel()
	end := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	command := func(data string, after time.Duration) string {
		o, err := Options{Program: "lakerunner", Data: data, Now: func() time.Time { return end.Add(after) }}.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		return (&running{options: o, settings: settings{SampleEnd: end}}).command("'" + firstQuery + "'")
	}
	for name, c := range map[string]struct{ got, want string }{
		"just after the start":          {command("", time.Minute), "lakerunner query '" + firstQuery + "'"},
		"of another directory":          {command("/a b/data", time.Minute), "lakerunner query '" + firstQuery + "' --data '/a b/data'"},
		"after the hour of the default": {command("", 3*time.Hour), "lakerunner query '" + firstQuery + "' --from 2026-03-01T11:50:00Z --to 2026-03-01T12:00:01Z"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %s, want %s", name, c.got, c.want)
		}
	}
}

func TestWithoutPassword(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"postgres://u:secret@h:5432/d":     "postgres://u:xxxxx@h:5432/d",
		"host=h user=u password=secret":    "as LRDB_URL says",
		"postgres://h/d?sslmode=disable":   "postgres://h/d?sslmode=disable",
		"postgres://u:sec%2Fret@h/d?x=yes": "postgres://u:xxxxx@h/d?x=yes",
	} {
		if got := withoutPassword(url); got != want {
			t.Errorf("%s: got %s, want %s", url, got, want)
		}
	}
}
