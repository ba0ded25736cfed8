# The commands of this repository. `make` shows them.

PYTHON ?= python3
VENV_PYTHON := .venv/bin/python
SETUP := $(PYTHON) scripts/setup.py
PYTEST = $(VENV_PYTHON) -m pytest -rs -n $(WORKERS) --dist loadfile

SOURCE =
BACKEND =
OUT =
SECONDS =
MINUTES = 10
ARGS =
# Test processes at a time (0 = all tests in one): `auto` is one more than there are processors, at most 8.
WORKERS = auto

# Two ROS programs with one domain see each other: these have domains of their own, whatever the shell has set.
# `make demo ROS_DOMAIN_ID=5` sets it nevertheless.
demo top: export ROS_DOMAIN_ID = 87
test test-unit test-nodes check examples: export ROS_DOMAIN_ID = 88
bench-pipeline bench-diagnostics bench-failover soak: export ROS_DOMAIN_ID = 89
demo top test test-unit test-nodes check examples bench-pipeline bench-diagnostics bench-failover soak: export ROS_AUTOMATIC_DISCOVERY_RANGE = LOCALHOST

# The ROS wheels leave this mark in the environment; with it, another Python would not find its libraries.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE
# Without ROS there is only the one middleware that the wheels bring.
ifndef AMENT_PREFIX_PATH
unexport RMW_IMPLEMENTATION
endif

.DEFAULT_GOAL := help
.PHONY: help demo test test-unit test-nodes check format lint types examples reference bench-pipeline bench-gate bench-backends bench-diagnostics bench-failover bench-pipelining bench-low-score soak evaluate-gate evaluate-cascade optimize-demo top setup setup-test setup-bench setup-evaluate setup-optimize setup-top lock clean distclean

help:  ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  make demo SOURCE=clip.mp4 BACKEND=openvino SECONDS=20 OUT=out/mine     variables of the demo"
	@echo "  make test ARGS='-k gate -x'                                            options for pytest"
	@echo "  make test WORKERS=0                                                    tests one after the other, in one process"
	@echo "  make evaluate-gate ARGS='--conditions pan_tilt --quick'                options of the evaluation"
	@echo "  make soak MINUTES=1                                                    a quick look"
	@echo "  make demo PYTHON=python3.12                                            another Python"

demo: setup  ## Set up, then run the pipeline on a video; results in out/demo/
	$(VENV_PYTHON) -m edge_vision demo $(if $(SOURCE),--source '$(SOURCE)') $(if $(BACKEND),--backend $(BACKEND)) \
		$(if $(OUT),--out '$(OUT)') $(if $(SECONDS),--seconds $(SECONDS))

test: setup-test  ## Set up, then run the tests
	$(PYTEST) $(ARGS)

# Tests of nodes mostly wait, and unit tests compute.
test-unit: setup-test
	$(PYTEST) test/unit $(ARGS)

test-nodes: setup-test
	$(PYTEST) test/nodes test/e2e test/launch $(ARGS)

check: setup-test  ## Format, lint, types, tests and examples: all that must be good before a commit
	scripts/check

format: setup-test  ## Write all Python files in the agreed form
	$(VENV_PYTHON) -m ruff format .
	$(VENV_PYTHON) -m ruff check --fix .

lint: setup-test  ## Look for mistakes without running anything
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m ruff check .

types: setup-test  ## Check the types
	scripts/types

examples: setup-test  ## Run every example
	$(VENV_PYTHON) examples/check.py

reference: setup  ## Generate docs/parameters.md, docs/topics.md and config/pipeline.yaml from the code
	$(VENV_PYTHON) -m edge_vision.nodes.interface.reference --write

bench-pipeline: setup  ## Measure the pipeline; results in out/bench/pipeline.json
	$(VENV_PYTHON) bench/pipeline.py $(ARGS)

bench-gate: setup  ## Measure the gate; results in out/bench/gate.json
	$(VENV_PYTHON) bench/gate.py $(ARGS)

bench-backends: setup-bench  ## Compare the runtimes, and PyTorch; results in out/bench/backends.json
	$(VENV_PYTHON) bench/backends.py $(ARGS)

bench-diagnostics: setup-test  ## Measure the diagnostics; results in out/bench/diagnostics.json
	$(VENV_PYTHON) bench/diagnostics.py --minutes $(MINUTES) $(ARGS)

bench-pipelining: setup  ## Does preparing a frame ahead pay? Results in out/bench/pipelining.json
	$(VENV_PYTHON) bench/pipelining.py $(ARGS)

bench-low-score: setup-evaluate  ## What do scores below the threshold say of the next frame? Results in out/bench/low_score.json
	$(VENV_PYTHON) bench/low_score.py $(ARGS)

bench-failover: setup-test  ## Measure how fast another backend or model takes over; results in out/bench/failover.json
	$(VENV_PYTHON) bench/failover.py $(ARGS)

soak: setup  ## Overload for MINUTES=10: age, memory, files; results in out/bench/soak.json
	$(VENV_PYTHON) bench/soak.py --minutes $(MINUTES) $(ARGS)

evaluate-gate: setup-evaluate  ## Judge the gate against an every-frame detector and rivals; results in out/gate/
	$(VENV_PYTHON) -m edge_vision evaluate gate $(if $(OUT),--out '$(OUT)') $(ARGS)

evaluate-cascade: setup-evaluate  ## Judge gate, cascade, detector and tracker together; results in out/cascade/
	$(VENV_PYTHON) -m edge_vision evaluate cascade $(if $(OUT),--out '$(OUT)') $(ARGS)

optimize-demo: setup-optimize  ## Find the best bundle of the SSD for this device; results in out/optimize/
	$(VENV_PYTHON) -m edge_vision optimize demo --out $(if $(OUT),'$(OUT)',out/optimize)

top: setup-top  ## Show the pipeline of `make demo` live, in another terminal; ROS_DOMAIN_ID=0 shows yours
	@$(VENV_PYTHON) -m edge_vision top $(ARGS)

setup:  ## Make .venv, fetch videos and models (what `make demo` needs)
	@$(SETUP) demo $(if $(BACKEND),--backend $(BACKEND))

setup-test:
	@$(SETUP) test

setup-bench:
	@$(SETUP) bench

setup-evaluate:
	@$(SETUP) evaluate

setup-optimize:
	@$(SETUP) optimize

setup-top:
	@$(SETUP) top

lock:  ## Pin the newest packages that requirements/*.in allow
	scripts/lock

clean:  ## Remove results and builds
	rm -rf out build

distclean: clean  ## Remove the environment too; the cache with the downloads stays
	rm -rf .venv
