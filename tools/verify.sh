#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-only
# Generated code and module files are up to date: generating anew changes nothing. Works in a tree with changes.
set -euo pipefail
cd "$(dirname "$0")/.."
sums() { git ls-files --cached --others --exclude-standard proto/gen '*/internal/db/*' go.work go.work.sum '*go.mod' '*go.sum' | sort -u | xargs sha256sum; }
before=$(sums)
tools/generate.sh
for module in "$@"; do
	if ! (cd "$module" && GOWORK=off go mod tidy -diff >/tmp/verify.$$ 2>&1); then
		cat /tmp/verify.$$
		echo "$module: go mod tidy would change it; run make fix" >&2
		exit 1
	fi
done
rm -f /tmp/verify.$$
go work sync
after=$(sums)
if ! diff <(echo "$before") <(echo "$after"); then
	echo "generated code or module files are out of date; run make fix" >&2
	exit 1
fi
