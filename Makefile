# Razor: build, try, test. `make` alone lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# Go as it is on PATH, or where its installer puts it.
GO ?= $(shell command -v go || echo /usr/local/go/bin/go)
export PATH := $(dir $(GO)):$(PATH)

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GOLANGCI_VERSION := v2.15.0
GOLANGCI := bin/tools/golangci-lint-$(GOLANGCI_VERSION)

ARGS     ?=
BENCH    ?= .
FUZZTIME ?= 30s
TOPOLOGY ?= failover

# Most tests wait for servers and routers rather than compute.
PARALLEL ?= 4

# With CI=true a test that cannot run has failed.
ifeq ($(CI),true)
export RAZOR_TEST_REQUIRE := 1
endif

# The race detector needs a C compiler; looked for after .ci/deps has run.
RACE = $(shell command -v gcc >/dev/null && echo -race)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: run
run: build ## Build and start the demonstration (ARGS="--dns-port 5301")
	@bin/razor demo $(ARGS)

# As root. TOPOLOGY is the name of one in integration/lab/topologies, or a file.
.PHONY: lab
lab: build ## Build a network of sites to break (TOPOLOGY=failover, ARGS=-story)
	@$(GO) run ./integration/lab -razor bin/razor $(ARGS) $(TOPOLOGY)

.PHONY: build
build: ## Build bin/razor
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/razor .

# The labs want all cores, so they are last. They run also where something has failed.
.PHONY: test
test: deps-test ## Run the tests, and install what they need
	good=true; \
	$(GO) test $(RACE) -shuffle=on -parallel $(PARALLEL) -timeout 20m $$($(GO) list ./... | grep -v '/integration/lab$$') || good=false; \
	$(GO) test $(RACE) -shuffle=on -parallel $(PARALLEL) -timeout 20m ./integration/lab || good=false; \
	$$good

.PHONY: test-long
test-long: deps-test ## Run the long tests, then every fuzz target for 60 s
	RAZOR_LONG=1 $(GO) test $(RACE) -shuffle=on -parallel $(PARALLEL) -timeout 2h $$($(GO) list ./... | grep -v '/integration/lab$$')
	RAZOR_LONG=1 $(GO) test $(RACE) -shuffle=on -parallel $(PARALLEL) -timeout 2h ./integration/lab
	$(MAKE) fuzz FUZZTIME=60s

.PHONY: lint
lint: $(GOLANGCI) ## Run the linters and check the formatting
	$(GOLANGCI) run --allow-parallel-runners ./...
	$(GO) mod tidy -diff

.PHONY: generate
generate: ## Make the generated files again
	$(GO) generate ./...

.PHONY: bench
bench: ## Run the benchmarks (BENCH=Answer)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem ./...

# With the prototypes of ../shared/prototypes/dataplane, where they are.
.PHONY: bench-dataplane
bench-dataplane: ## Print what the dataplane takes for packets and decisions
	$(GO) test -run '^$$' -bench '^BenchmarkDataplane(Wire)?$$' -benchtime 25x ./integration
	$(GO) test -run '^$$' -bench '^Benchmark(Flip|ServiceMemory)$$' -benchtime 100x ./gateway/balancer
	$(GO) test -run '^$$' -bench '^BenchmarkMaglev$$/^1024$$' ./steering

# One after another: each takes all cores.
.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (30s)
	@$(GO) test -list '^Fuzz' ./... | \
	awk '/^Fuzz/ { name[++n] = $$1 } /^ok/ { for (i = 1; i <= n; i++) print $$2, name[i]; n = 0 }' | \
	while read -r package name; do \
		echo "=== $$name ($$package)"; \
		.ci/fuzz "$(GO)" "$$package" "$$name" $(FUZZTIME) || exit 1; \
	done

.PHONY: deps
deps: deps-test $(GOLANGCI) ## Install what tests and linters need

.PHONY: deps-test
deps-test:
	@.ci/deps
	@.ci/consul >/dev/null

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin

# The version is in the name, so that a new pin is a new file.
$(GOLANGCI):
	CGO_ENABLED=0 GOFLAGS= GOBIN=$(CURDIR)/bin/tools $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv bin/tools/golangci-lint $@
