#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-only
# Every source file begins with its licence; buf's generated code is left out.
set -euo pipefail
cd "$(dirname "$0")/.."
missing=$(git ls-files --cached --others --exclude-standard '*.go' '*.proto' '*.sql' '*.sh' 'Makefile' '.ci/run' 'deploy/Dockerfile' |
	grep -vE '^proto/gen/|/testdata/' |
	while read -r f; do [ -f "$f" ] || continue; head -n 5 "$f" | grep -q 'SPDX-License-Identifier: AGPL-3.0-only' || echo "$f"; done)
if [ -n "$missing" ]; then
	echo "these files do not begin with the line 'SPDX-License-Identifier: AGPL-3.0-only':" >&2
	echo "$missing" >&2
	exit 1
fi
