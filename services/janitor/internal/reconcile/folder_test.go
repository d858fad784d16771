// SPDX-License-Identifier: AGPL-3.0-only

package reconcile

import "testing"

func TestFolder(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"plain":                     "",
		"otel-raw/acme/gw/1.binpb":  "otel-raw/acme/gw/",
		"a/hour=17/minute=05/1.gz":  "a/hour=17/",
		"a/hour=17/minute=05/":      "a/hour=17/",
		"a/hour=17/":                "a/hour=17/",
		"a/year=2026/month=11/1.gz": "a/year=2026/month=11/",
	} {
		if got := Folder(key); got != want {
			t.Errorf("%s: got %s, want %s", key, got, want)
		}
	}
}
