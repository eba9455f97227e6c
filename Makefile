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

.DEFAULT_GOAL := help
.PHONY: help build test lint bench figures demo image fmt clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## static binaries of every command, in bin/
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=auto -ldflags "-s -w -X github.com/cleanstart-dev/cleanimg-init/cmd/internal/version.Version=$(VERSION)" -o bin/ ./cmd/...

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
	rm -rf bin
