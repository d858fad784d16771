// SPDX-License-Identifier: AGPL-3.0-only

// Package selector decides which log rows a LogQL log selector lets through, with Loki's own parser and pipeline.
package selector

import "github.com/grafana/loki/v3/pkg/logql/syntax"

// Parse parses a log selector.
func Parse(text string) (syntax.LogSelectorExpr, error) { return syntax.ParseLogSelector(text, true) }
