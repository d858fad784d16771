// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// TestUsageOfDeletesAndRecovery words what cannot be meant, before any server or database is asked.
func TestUsageOfDeletesAndRecovery(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		args []string
		says string
	}{
		"a delete of nothing":           {[]string{"delete", "create"}, "the selector is missing"},
		"a delete without a reason":     {[]string{"delete", "create", `{a="b"}`}, "--reason"},
		"an unknown policy":             {[]string{"delete", "create", `{a="b"}`, "--reason", "r", "--sources", "burn"}, "leave, erase or redact"},
		"a delete from nowhen":          {[]string{"delete", "create", `{a="b"}`, "--reason", "r", "--from", "soon"}, "--from"},
		"a certificate of nothing":      {[]string{"delete", "certificate"}, "the delete's id is missing"},
		"an unknown audit command":      {[]string{"audit", "burn"}, `unknown command "burn"`},
		"a rebuild into no database":    {[]string{"rebuild-index"}, "LRDB_URL"},
		"a move to nowhere":             {[]string{"rebuild-index", "--bucket", "old"}, "OLD=NEW"},
		"verification of no database":   {[]string{"verify"}, "LRDB_URL"},
		"a sample of nothing":           {[]string{"verify", "--sample", "0"}, "--sample"},
		"a repair that does not exist":  {[]string{"verify", "--repair", "yes"}, "want no or mark"},
		"a rollup of nothing":           {[]string{"rollup", "run", "--at", "now"}, "--resolution"},
		"a rollup of spans":             {[]string{"rollup", "plan", "--signal", "spans"}, "metrics or logs"},
		"an unknown rollup command":     {[]string{"rollup", "burn"}, `unknown command "burn"`},
		"verification in another shape": {[]string{"verify", "-o", "xml"}, "table or json"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out, remarks bytes.Buffer
			code := Run(t.Context(), Environment{
				Args: append(c.args, "--data", t.TempDir()), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &remarks,
				Getenv: func(string) string { return "" }, Now: time.Now,
			})
			if code != 2 || !strings.Contains(remarks.String(), c.says) {
				t.Errorf("exit code %d, want 2: %s", code, remarks.String())
			}
		})
	}
}
