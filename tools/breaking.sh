#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-only
# The contracts stay compatible with the newest released ones (tag proto/v*); before the first release, with the last commit.
set -euo pipefail
cd "$(dirname "$0")/.."
against=$(git tag --list 'proto/v*' --sort=-v:refname | head -n 1)
"$1" breaking --against ".git#ref=${against:-HEAD}"
