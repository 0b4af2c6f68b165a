# A thin front: each target is one script of tools/, which can also be called by itself. 'make help' lists them.
.DEFAULT_GOAL := build
# With it, a script that goes to its own folder could get to another one.
unexport CDPATH
.PHONY: build run stack test asan tsan mutate fuzz bench fmt lint clean help

build: ## build the executable, build/skald
	@tools/build build

run: ## install what is missing, build, start PostgreSQL and the shop (PORT, HOST, SKALD_VAR, DATABASE_URL)
	@tools/install_packages run
	@tools/build build
	@tools/run

stack: ## the same as a cluster would run it: Kafka, seven services, OpenSearch (EVENTS=debezium|relay|wal, WITHOUT_LOGGING, PORT)
	@tools/install_packages stack
	@tools/build build
	@tools/stack

test: ## every gate and every test; the last line counts them
	@tools/install_packages test
	@tools/test

asan: ## the unit and system tests with the address and undefined behaviour sanitizers
	@tools/test unit-asan system-asan

tsan: ## the unit tests with the thread sanitizer
	@tools/test unit-tsan

mutate: ## break the product on purpose and see that the unit tests notice (MUTATE=name for one)
	@tools/mutate $(MUTATE)

fuzz: ## run each fuzz target (FUZZ=name for one, SECONDS_EACH=60)
	@tools/fuzz $(FUZZ)

bench: build ## measure throughput beside pgbench
	@test/bench/run

fmt: ## format the C sources
	@tools/check_format --fix

lint: ## clang-tidy
	@tools/lint

clean: ## remove everything built; data in var/ stays
	@rm -rf build build-*

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 10
