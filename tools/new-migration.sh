#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-only
# Makes the next numbered migration: new-migration.sh folder name
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$1 name=$2
[[ "$name" =~ ^[a-z0-9_]+$ ]] || { echo "usage: make new-migration name=lower_case_words" >&2; exit 2; }
last=$(ls "$dir" | sed -nE 's/^0*([0-9]+)_.*\.sql$/\1/p' | sort -n | tail -n 1)
file=$(printf '%s/%05d_%s.sql' "$dir" $((${last:-0} + 1)) "$name")
printf -- '-- SPDX-License-Identifier: AGPL-3.0-only\n\n-- +goose Up\n' >"$file"
echo "$file"
