#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-only
# Generates code from protobuf (buf) and SQL (sqlc).
set -euo pipefail
cd "$(dirname "$0")/.."
bin/tools/buf generate
git ls-files --cached --others --exclude-standard '*sqlc.yaml' | while read -r f; do
	(cd "$(dirname "$f")" && "$OLDPWD/bin/tools/sqlc" generate)
done
