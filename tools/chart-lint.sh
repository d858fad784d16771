#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-only
# Lints and renders every chart, in a copy: building dependencies writes archives beside the chart.
set -euo pipefail
cd "$(dirname "$0")/.."
helm=$PWD/$1
[ "${1#/}" = "$1" ] || helm=$1
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r deploy/charts/. "$copy"
cd "$copy"
for chart in notifier ingestor compactor rollup janitor query-frontend query-worker lakerunner; do
	"$helm" dependency build "$chart" >/dev/null
	"$helm" lint --quiet "$chart"
	"$helm" template lakerunner "$chart" --set autoscaling.enabled=true >"$copy/rendered.yaml"
	grep -q '^kind: Deployment$' "$copy/rendered.yaml" || { echo "chart $chart renders no Deployment" >&2; exit 1; }
done
