#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-only
# Runs every fuzz target of the given modules for a bounded time: fuzz.sh 5s module...
set -euo pipefail
cd "$(dirname "$0")/.."
time=$1
shift
for module in "$@"; do
	grep -rlE '^func Fuzz[A-Z]' --include='*_test.go' "$module" 2>/dev/null | xargs -r -n1 dirname | sort -u | while read -r dir; do
		grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$dir"/*_test.go | sed 's/^func //' | sort -u | while read -r target; do
			echo "fuzz $dir $target $time"
			go test "./$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 200x -parallel 2 >/tmp/fuzz.$$ 2>&1 </dev/null || { cat /tmp/fuzz.$$; exit 1; }
			tail -n 1 /tmp/fuzz.$$
		done
	done
done
rm -f /tmp/fuzz.$$
