# Everything a contributor runs. `make` alone lists the targets.

SHELL := /bin/sh
.DEFAULT_GOAL := help

INSTALL  := sh platform/db/embedded/install.sh
GOTOOL   := go tool -modfile=tools/go.mod
PROGRAM  ?= bin/strata
FUZZTIME ?= 30s

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: build ## Start the server on 127.0.0.1:8080, with its own PostgreSQL unless DATABASE_URL is set
	@exec bin/strata

# nomsgpack leaves out 9 MB of gin's that nothing here asks for.
.PHONY: build
build: ## Build the server as bin/strata
	@CGO_ENABLED=0 go build -trimpath -tags nomsgpack -o $(PROGRAM) ./cmd/api

.PHONY: test
test: ## Run all tests under the race detector; installs PostgreSQL, Redis and a C compiler where missing
	@$(INSTALL) postgresql redis gcc
	@CGO_ENABLED=1 go test -race ./...

.PHONY: lint
lint: ## Check style, formatting, and that generated files are up to date
	@unformatted=$$($(GOTOOL) gofumpt -l .) && if [ -n "$$unformatted" ]; then \
		echo "not formatted; run make fmt:" && echo "$$unformatted" && exit 1; fi
	@go vet ./...
	@$(GOTOOL) golangci-lint run
	@go run ./cmd/api openapi | diff -u docs/openapi.json - \
		|| { echo "docs/openapi.json is out of date; run make generate"; exit 1; }

.PHONY: fmt
fmt: ## Format all Go files
	@$(GOTOOL) gofumpt -w .

.PHONY: generate
generate: ## Write docs/openapi.json from the handlers' types
	@go run ./cmd/api openapi >docs/openapi.json.new && mv docs/openapi.json.new docs/openapi.json

.PHONY: bench
bench: ## Measure the server against its ceilings, into bench/results; BENCH='-run session' for a part
	@$(INSTALL) postgresql redis
	@go run ./bench $(BENCH)

.PHONY: microbench
microbench: ## Run the packages' own benchmarks
	@$(INSTALL) postgresql redis
	@go test -run '^$$' -bench . -benchmem ./...

.PHONY: consistency
consistency: ## Prove the cache's promise against every fault: CONSISTENCY_READS (10000000) reads, CONSISTENCY_SEED (random)
	@$(INSTALL) postgresql redis
	@CONSISTENCY_READS=$${CONSISTENCY_READS:-10000000} go test -count=1 -timeout 6h -v ./test/consistency

.PHONY: fuzz
fuzz: ## Run every fuzz test for FUZZTIME (30s)
	@grep -ro --include='*_test.go' 'func Fuzz[A-Za-z0-9_]*' . | sort | while IFS=: read -r file func; do \
		go test -run '^$$' -fuzz "^$${func#func }\$$" -fuzztime $(FUZZTIME) "$${file%/*}" || exit 1; done

.PHONY: tidy
tidy: ## Make go.mod list exactly what is used
	@go mod tidy
