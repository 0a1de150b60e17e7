# Everything a person types. ARGS passes flags on: make demo ARGS='--for 20s', make e2e ARGS=live.
# build, test and demo need Go alone: modules come by themselves. What Maven, PyPI and Debian give is asked for only by e2e, interop
# and bench, which say by name what they skip.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

# One way to build for build, test and lint, so that they share what is compiled. The race detector needs cgo.
export CGO_ENABLED ?= 0

ARGS ?=
# The tag turns on costly checks of our own invariants; race and check run without it.
TAGS ?= invariants
PKGS ?= ./...
# Packages that start goroutines or share state between them.
RACE_PKGS ?= ./cmd/... ./ingest/... ./logstore/... ./state/... ./changelog/table/... ./changelog/flush/... ./optimizer/...
FUZZTIME ?= 20s
FUZZ_DIR ?= .
FUZZ_JOBS ?= 1
SOAK ?= 10m
SEEDS ?= 5000
SEED ?= 1
TOOL := go tool -modfile=deploy/tools/go.mod
SCRIPTS := .ci/run $(wildcard deploy/e2e/*.sh deploy/bench/*.sh deploy/interop/*.sh)

.PHONY: build test race lint fmt fuzz amoro crash soak soak-optimizers e2e interop bench bench-compare tidy-check layout vet check demo clean help

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F'\t' '{ printf "%-14s %s\n", $$1, $$2 }'

build: ## .build/firn: pure Go, no cgo
	go build -o .build/firn ./cmd/firn

test: ## all tests, our invariants checked
	go test -tags '$(TAGS)' -timeout 5m $(ARGS) $(PKGS)

# Left out: the soak, whose server TestKill runs, too, and tests that are one verb after the other. They are slow here.
RACE_SKIP := ^(TestSoakOptimizers|TestAdoptAmoro|TestAmoroTables|TestBadInput|TestEveryType)$$
race: ## the concurrent packages under the race detector
	FIRN_TEST_SEEDS=3 CGO_ENABLED=1 go test -race -timeout 15m -skip '$(RACE_SKIP)' $(ARGS) $(RACE_PKGS)

lint: ## golangci-lint, and shellcheck where it is installed
	$(TOOL) golangci-lint run $(ARGS)
	@if command -v shellcheck >/dev/null; then shellcheck -x -P . $(SCRIPTS); else echo 'lint: SKIPPED shellcheck: not installed' >&2; fi

fmt: ## gofumpt and gci over the tree
	$(TOOL) golangci-lint fmt $(ARGS)

fuzz: ## every FuzzXxx below FUZZ_DIR (.) for FUZZTIME (20s), FUZZ_JOBS (1) of them at a time
	@grep -rEo --include='*_test.go' --exclude-dir='.?*' '^func (Fuzz[A-Za-z0-9_]+)' $(FUZZ_DIR) | sed 's|/[^/]*_test.go:func | |' | sort -u | \
	xargs -L1 -P$(FUZZ_JOBS) bash -c 'echo "== $$1 $$2"; go test -run "^$$" -fuzz "^$$2\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $(ARGS) "./$$1" 2>&1 | sed "s/^/$$2: /"; exit $${PIPESTATUS[0]}' fuzz

amoro: ## every table that Amoro wrote: adopted, and 20 batches of changes on each, checked by Iceberg's Java library (minutes)
	@peer='$(CURDIR)/deploy/peers/javaiceberg'; "$$peer/install" >/dev/null 2>&1 || { echo 'amoro: SKIPPED javaiceberg: it cannot be had here' >&2; peer=; }; \
	FIRN_TEST_JAVAICEBERG="$$peer" FIRN_AMORO=all go test -tags '$(TAGS)' -count=1 -timeout 30m -run '^Test(AmoroTables|AdoptAmoro)$$' -v $(ARGS) ./cmd/firn

crash: ## the tests that cut the power or kill the process, always anew
	go test -tags '$(TAGS)' -count=1 -timeout 15m -run '(?i)crash|kill|power' $(ARGS) $(PKGS)

soak: ## SEEDS (5,000) generated streams of events through kills, restarts and repeats, from SEED (1) on: about half a CPU second each
	FIRN_TEST_SEEDS=$(SEEDS) FIRN_TEST_SEED=$(SEED) go test -tags '$(TAGS)' -count=1 -timeout 180m -run '^TestSeeds$$' $(ARGS) ./ingest

soak-optimizers: ## firn's optimizer and a stand-in for Amoro's on one lake for SOAK (10m)
	FIRN_SOAK=$(SOAK) go test -tags '$(TAGS)' -count=1 -timeout 60m -run TestSoakOptimizers -v $(ARGS) ./cmd/firn

e2e: build ## real Kafka, PostgreSQL, Debezium and foreign readers (E2E=full: everything)
	deploy/e2e/run.sh $(ARGS)

interop: ## the matrix of table shapes before firn's readers, a second one and foreign ones (INTEROP=small, full)
	deploy/interop/run.sh $(ARGS)

bench: build ## firn against Flink on one topic of a real Kafka; ingest and lookups
	deploy/bench/run.sh $(ARGS)

bench-compare: ## Go benchmarks of BASE (HEAD) and this tree, ten alternating runs: make bench-compare PKG=./logstore BENCH=Append
	deploy/bench/compare.sh $(ARGS)

vet:
	go vet $(PKGS)
	go vet -tags '$(TAGS)' $(PKGS)

layout: ## the import table and what may stand at the top
	go test -run '^(TestImports|TestOwnersAreUsed|TestTopLevel)$$' ./cmd

tidy-check: ## both go.mod files are what go mod tidy would leave
	go mod tidy -diff
	go -C deploy/tools mod tidy -diff
	go mod verify

check: build vet lint layout tidy-check race ## what must hold before a change lands
	@echo 'go test, without tags, of the packages that race leaves out'
	@comm -23 <(go list $(PKGS) | sort) <(go list $(RACE_PKGS) | sort) | xargs -r go test -timeout 5m

demo: build ## the whole pipeline with nothing installed
	.build/firn demo $(ARGS)

clean:
	rm -rf .build
