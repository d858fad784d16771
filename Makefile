# SPDX-License-Identifier: AGPL-3.0-only
# LakeRunner's commands. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

ROOT      := $(CURDIR)
BIN       := $(ROOT)/bin
TOOLS     := $(BIN)/tools
MODULES   := proto pkg services/notifier services/ingestor services/compactor services/rollup services/janitor services/query-frontend services/query-worker services/lakerunner
SERVICES  := notifier ingestor compactor rollup janitor query-frontend query-worker lakerunner
PACKAGES  := $(addprefix ./,$(addsuffix /...,$(MODULES)))
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
REGISTRY  ?= ghcr.io/lakerunner
FUZZTIME  ?= 5s
RACE      ?= -race
CORPUS    ?=
export CGO_ENABLED := 1

.PHONY: help
help: ## List the targets.
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- run and build ------------------------------------------------------------------------------------------------

.PHONY: up
up: local ## Build, start everything on this machine, load sample telemetry, print URLs and a first query.
	$(BIN)/lakerunner up

.PHONY: local
local: deps ## Build bin/lakerunner.
	go build -ldflags "-X main.version=$(VERSION)" -o $(BIN)/lakerunner ./services/lakerunner/cmd/lakerunner

.PHONY: deps
deps: ## Install the system packages that building needs, where they are missing.
	@tools/deps.sh

.PHONY: images
images: ## Build one container image a service.
	for s in $(SERVICES); do docker build --build-arg SERVICE=$$s --build-arg VERSION=$(VERSION) -t $(REGISTRY)/$$s:$(VERSION) -f deploy/Dockerfile .; done

.PHONY: promote-to-prod
promote-to-prod: ## Give the pushed images of VERSION the tag prod.
	for s in $(SERVICES); do docker buildx imagetools create -t $(REGISTRY)/$$s:prod $(REGISTRY)/$$s:$(VERSION); done

# --- test ---------------------------------------------------------------------------------------------------------

.PHONY: test
test: deps $(TOOLS)/.installed test-only ## Install what the tests need and run every test.

.PHONY: test-only
test-only: ## Run every test; nothing is installed first.
	@tools/test.sh $(RACE) $(PACKAGES)
	@cd tools && GOWORK=off go test ./...

.PHONY: test-integration
test-integration: ## Run the end-to-end tests alone.
	@tools/test.sh $(RACE) ./services/lakerunner/...

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME each.
	@tools/fuzz.sh $(FUZZTIME) $(MODULES)

.PHONY: torture
torture: deps ## Run the whole fault matrices, long histories, every kill point, all of Prometheus' suite, thousands of queries; SEEDS=n for more passages of each point.
	LAKERUNNER_TORTURE=1 LAKERUNNER_SEEDS="$(SEEDS)" go test -count=1 -timeout 180m -v -run 'Faults$$|Histories|Crash|EveryAnswer|EveryMetricAnswer|EveryTier|Suite$$|OfTheShop' ./services/lakerunner/e2e
	LAKERUNNER_TORTURE=1 go test -count=1 -timeout 60m ./pkg/metricfile ./services/ingestor/internal/metricmapping/... ./services/ingestor/internal/pipeline \
		./services/compactor/internal/work ./services/rollup/internal/work ./services/query-worker/internal/metrics ./services/query-frontend/internal/...

.PHONY: soak
soak: deps ## Run everything under steady load for SOAK=1h, and say whether memory, debt and latency are steady.
	go run ./services/lakerunner/cmd/soak -for "$(or $(SOAK),1h)"

.PHONY: bench
bench: local ## Measure ingest and queries on CORPUS=dir (objects in dir/otlp, answers in dir/truth.json), the index at INDEX=10M segments, SMALL=100000 small objects, YEAR=5000 series of rollups, or SERIES=1M in an hour.
	@test -n "$(CORPUS)$(INDEX)$(SMALL)$(YEAR)$(SERIES)" || { echo "make bench needs CORPUS=dir, a folder with otlp/*.binpb.gz and truth.json, INDEX=10M, SMALL=100000, YEAR=5000, or SERIES=1M"; exit 2; }
	$(if $(INDEX),go run ./services/lakerunner/cmd/bench -index "$(INDEX)",)
	$(if $(SMALL),go run ./services/lakerunner/cmd/bench -small "$(SMALL)",)
	$(if $(YEAR),go run ./services/lakerunner/cmd/bench -year "$(YEAR)",)
	$(if $(SERIES),go run ./services/lakerunner/cmd/bench -series "$(SERIES)",)
	$(if $(CORPUS),go run ./services/lakerunner/cmd/bench -corpus "$(CORPUS)",)

# --- check --------------------------------------------------------------------------------------------------------

.PHONY: check
check: deps $(TOOLS)/.installed license-check verify build-alone lint test-only fuzz ## All of CI.

.PHONY: lint
lint: $(TOOLS)/.installed ## Lint Go, protobuf, shell and charts.
	$(TOOLS)/buf lint
	@tools/breaking.sh $(TOOLS)/buf
	$(TOOLS)/golangci-lint run $(PACKAGES)
	@tools/chart-lint.sh $(TOOLS)/helm

.PHONY: license-check
license-check: ## Check that every source file names its licence.
	@tools/license-check.sh

.PHONY: build-alone
build-alone: ## Build every module outside the workspace.
	@# Prometheus' iterators have a Seek of their own, which vet takes for that of package io.
	@for m in $(MODULES); do echo "build $$m"; (cd $$m && GOWORK=off go build ./... && GOWORK=off go vet -stdmethods=false ./...); done

.PHONY: verify
verify: $(TOOLS)/.installed ## Check that generated code and module files are up to date.
	@tools/verify.sh $(MODULES)

# --- change -------------------------------------------------------------------------------------------------------

.PHONY: generate
generate: $(TOOLS)/.installed ## Generate code from protobuf and SQL.
	@tools/generate.sh

.PHONY: fmt
fmt: $(TOOLS)/.installed ## Format Go and protobuf.
	$(TOOLS)/gofumpt -w $$(git ls-files '*.go' | grep -v -e '^proto/gen/' -e '/internal/db/')
	$(TOOLS)/buf format -w

.PHONY: imports-fix
imports-fix: $(TOOLS)/.installed ## Order the imports.
	$(TOOLS)/golangci-lint fmt $(PACKAGES)

.PHONY: fix
fix: fmt imports-fix generate ## Mend what check can mend: formats, imports, generated code, module files.
	for m in $(MODULES); do (cd $$m && GOWORK=off go mod tidy); done
	go work sync
	for m in $(MODULES); do (cd $$m && GOWORK=off go mod tidy); done

.PHONY: new-migration
new-migration: ## Make the next migration of the index: make new-migration name=add_column.
	@tools/new-migration.sh pkg/index/migrations "$(name)"

$(TOOLS)/.installed: tools/go.mod tools/go.sum
	@mkdir -p $(TOOLS)
	cd tools && GOWORK=off GOBIN=$(TOOLS) go install tool
	@touch $@
