#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-only
# Installs the system packages that building needs: DuckDB links against libstdc++, so a C++ compiler.
set -euo pipefail
command -v g++ >/dev/null && exit 0
if ! command -v apt-get >/dev/null; then
	echo "g++ is missing: install a C++ compiler and run make again" >&2
	exit 1
fi
sudo=""
[ "$(id -u)" = 0 ] || sudo="sudo"
$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends g++
