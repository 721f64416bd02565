# What to run here. Everything that is built, fetched or written goes into the build folder: $FLOWSTONE_BUILD, else cargo's own
# choice (CARGO_TARGET_DIR), else target/. What the machine lacks is installed by tools/clients/setup.sh, which names it first.

BUILD := $(abspath $(or $(FLOWSTONE_BUILD),$(CARGO_TARGET_DIR),target))
export FLOWSTONE_BUILD := $(BUILD)
export CARGO_TARGET_DIR := $(BUILD)
SETUP := tools/clients/setup.sh
STEPS := python3 tools/clients/steps.py
PYTEST := $(BUILD)/clients/venv/bin/pytest -c tools/clients/pytest.ini

.PHONY: help build demo test fuzz mutants clients kill faults soak idle bench bench-quick micro flame audit cargo
.DEFAULT_GOAL := help

help: ## Says what there is to make.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

cargo:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust 1.95 or newer with rustup (https://rustup.rs), open a new shell, and run make again" >&2; exit 1; }

build: cargo ## Builds flowstoned and flowstone, optimised, into the build folder.
	@$(SETUP) base
	cargo build --release --locked -p flowstone-broker -p flowstone-cli

demo: build ## The main job on real input: the machine's packages, kcat, a consumer group, a SIGKILL, and a count of every byte.
	@$(SETUP) kcat
	@python3 tools/demo/demo.py

test: cargo ## Format, lints, docs, unit tests, simulation, and real clients (the quick part). Ends with the totals.
	@$(SETUP) base
	@$(STEPS) test

mutants: cargo ## Breaks one rule of the cores after another on purpose, and shows that the core simulator finds each.
	@$(SETUP) base
	@python3 tools/simulator/core/mutants.py

fuzz: cargo ## Hostile bytes under libFuzzer (needs a nightly compiler): all targets, or TARGET=segment; SECONDS=60 for each.
	@$(SETUP) base
	@python3 tools/fuzz/fuzz.py --seconds $(or $(SECONDS),60) $(TARGET)

clients: build ## Every client suite we have, whole: Kafka's tools, librdkafka's tests, Python, kcat, Node, Go. About half an hour.
	@$(SETUP) kcat jars python librdkafka node go
	@$(STEPS) clients

kill: build ## 200 cycles of SIGKILL under load: nothing acknowledged may be lost, doubled or out of order. CYCLES=n for another count.
	@$(SETUP) kcat jars python
	@KILL_CYCLES=$(or $(CYCLES),200) $(PYTEST) tools/clients/crash -s

faults: build ## Every fault scenario against the real daemon: kills, power loss, full and failing disks, bad networks. ONLY=S10-xfs for one.
	@$(SETUP) xfs faketime
	cargo build --release --locked -p flowstone-faults
	@$(BUILD)/release/flowstone-faults run $(or $(ONLY),all) --json $(BUILD)/faults.json

soak: build ## Half load through retention with faults at random for MINUTES=30; leaves a chart and the samples in the build folder.
	cargo build --release --locked -p flowstone-faults
	@$(BUILD)/release/flowstone-faults run S37 --rounds $(or $(MINUTES),30)

idle: build ## What the daemon costs when nobody asks anything: time to the first answer, memory, CPU.
	@python3 tools/demo/idle.py

bench: cargo ## Flowstone beside Apache Kafka: CPU per GB and request, throughput, latency. ROWS=, BROKERS=, ROUNDS= choose (benches/README.md).
	@$(SETUP) base jars rdkafka-perf charts
	cargo build --release --locked -p flowstone-blast
	$(if $(FLOWSTONED),,cargo build --release --locked -p flowstone-broker)
	@python3 benches/compare $(BENCH)

bench-quick: BENCH := --quick ## The same as a tour of five minutes: one short round of the rows that say most.
bench-quick: bench

micro: cargo ## The pure hot parts by criterion, and the produce path's instructions against their budget.
	@$(SETUP) base valgrind
	cargo build --release --locked -p flowstone-micro
	@$(BUILD)/release/flowstone-instructions
	cargo bench --locked -p flowstone-micro

flame: cargo ## A flame graph of the broker under one row's load: ROW=produce-16k.
	@$(SETUP) base jars perf inferno
	cargo build --release --locked -p flowstone-blast
	$(if $(FLOWSTONED),,cargo build --release --locked -p flowstone-broker)
	@python3 benches/compare --flame $(or $(ROW),produce-16k)

audit: cargo ## Licences, sources and bans of all dependencies, and known vulnerabilities where their database can be reached.
	@$(SETUP) base deny
	@$(STEPS) audit
