# SPDX-License-Identifier: Apache-2.0

GO    ?= go
IMAGE ?= cleanimg-init
# The tag that is checked out, if there is one.
VERSION ?= $(or $(shell git describe --tags --exact-match 2>/dev/null),dev)
# The tools are pinned in a module file of their own, so that go.mod names
# only what is in the product.
TOOL   = $(GO) tool -modfile=.ci/tools.mod

# What lies under a folder with a leading dot is no part of "./...".
CI_PACKAGES = ./.ci/testreport
# A module of its own: what it needs of Kubernetes and Helm is big.
KUBERNETES = examples/kubernetes/check

# What a release is built with, too (.goreleaser.yaml).
COMMANDS = ./cmd/...
BIN      = bin/
BUILD    = CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=auto -ldflags "-s -w -X github.com/cleanstart-dev/cleanimg-init/cmd/internal/version.Version=$(VERSION)"

# Every architecture of a release.
ARCHES   = amd64 arm64 arm ppc64le s390x riscv64
# For each fuzz target.
FUZZTIME = 10s

.DEFAULT_GOAL := help
.PHONY: help build cross test test-arm64 fuzz reproducible lint bench figures demo image fmt clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## static binaries of every command, in bin/
	$(BUILD) -o $(BIN) $(COMMANDS)

cross: ## binaries for every architecture, in dist/
	@for arch in $(ARCHES); do \
		echo "building for $$arch"; \
		GOARCH=$$arch GOARM=7 $(BUILD) -o dist/$$arch/ $(COMMANDS) || exit; \
	done

test-arm64: ## unit tests as arm64 programs, under qemu-user
	.ci/test-arm64

fuzz: ## every fuzz target for FUZZTIME (10s)
	.ci/fuzz $(FUZZTIME)

reproducible: ## build what is committed twice, in different surroundings, and compare
	.ci/reproducible

# The tools can share the machine while they are tested. What storms the reaper,
# or measures how long something takes, is tested alone.
TOGETHER = $(filter-out %/hooks,$(shell $(GO) list ./cmd/... ./hooks/...)) $(CI_PACKAGES)
ALONE    = $(filter-out $(TOGETHER),$(shell $(GO) list ./...))

# -count=1: the tests run binaries and containers that the test cache does not
# know of, so that a cached result could be an old one. With -p=1 go test would
# also compile one package after another, so that is done before.
test: build ## everything this machine can run, and a list of what it could not
	@$(GO) build $$(command -v cc >/dev/null && echo -race) ./...
	$(GO) run ./.ci/testreport -race -count=1 -timeout=10m $(TOGETHER) -- -race -count=1 -p=1 -timeout=10m $(ALONE) -- -C $(KUBERNETES) -count=1 -timeout=5m ./...

lint: ## formatting, vet, staticcheck, known vulnerabilities, go.mod
	@files=$$($(TOOL) gofumpt -l .) && test -z "$$files" || { echo "not formatted (make fmt):"; echo "$$files"; exit 1; }
	$(GO) vet ./... $(CI_PACKAGES)
	$(TOOL) staticcheck ./... $(CI_PACKAGES)
	$(GO) mod tidy -diff
	cd $(KUBERNETES) && $(GO) vet ./... && $(GO) mod tidy -diff
	.ci/vulncheck ./...

bench: ## measure the init beside tini and dumb-init, and the tools beside others
	$(GO) run ./integration/bench
	$(GO) run ./integration/bench/config
	$(GO) run ./integration/bench/volume
	$(GO) run ./integration/bench/await

figures: ## measure throttling as root; the table and the picture of docs/timeouts.md
	$(GO) run ./integration/throttling -write

demo: build ## hooks before a command as PID 1, probes, a graceful stop: under 15 seconds
	CGO_ENABLED=0 $(GO) run ./examples/demo

image: ## the container image, with the Docker Engine
	docker build --build-arg VERSION=$(VERSION) -t $(IMAGE) .

fmt: ## format every Go file
	$(TOOL) gofumpt -w .

clean: ## remove what the other targets made
	rm -rf bin dist
