#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-only
# Runs every fuzz target of the given modules for a bounded time: fuzz.sh 5s module...
set -euo pipefail
cd "$(dirname "$0")/.."
time=$1
shift
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Lines "file:target" of all targets.
targets=$(grep -roE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' "$@" | sed 's/:func /:/')
[ -n "$targets" ] || { echo "no fuzz target found below $*" >&2; exit 1; }
for target in $targets; do
	dir=$(dirname "${target%%:*}")
	name=${target##*:}
	echo "fuzz $dir $name for $time"
	go test "./$dir" -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 200x -parallel 2 >"$log" 2>&1 || { cat "$log"; exit 1; }
	tail -n 1 "$log"
done
