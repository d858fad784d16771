#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-only
# Generates code from protobuf (buf) and SQL (sqlc, which writes no licence line of its own).
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
bin/tools/buf generate
for config in $(git ls-files --cached --others --exclude-standard '*sqlc.yaml'); do
	cd "$root/$(dirname "$config")"
	"$root/bin/tools/sqlc" generate
	for file in internal/db/*.go; do
		head -n 1 "$file" | grep -q 'SPDX-License-Identifier' || sed -i '1i // SPDX-License-Identifier: AGPL-3.0-only\n' "$file"
	done
done
