#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-only
# Runs the tests of the given packages: in short form through gotestsum where it is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
args=(-count=1 -timeout 30m "$@")
if [ -x bin/tools/gotestsum ]; then
	exec bin/tools/gotestsum --format pkgname-and-test-fails -- "${args[@]}"
fi
exec go test "${args[@]}"
