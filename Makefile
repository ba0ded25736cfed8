# The commands of this repository. `make help` lists them.

PYTHON ?= python3
VENV_PYTHON := .venv/bin/python
SETUP := $(PYTHON) scripts/setup.py
PYTEST = scripts/run_tests $(WORKERS)

SOURCE =
BACKEND =
MODEL =
PRESET =
PARAMS =
OUT =
SECONDS =
MINUTES = 10
ARGS =
# Parallel test processes; 0: one process. `auto`: number of processors + 1, at most 8.
WORKERS = auto

# ROS programs in the same domain communicate, so these use their own, whatever the shell sets.
# `make demo ROS_DOMAIN_ID=5` overrides it. `top` shows the demo, or the domain that the shell sets.
demo: export ROS_DOMAIN_ID = 87
top web: export ROS_DOMAIN_ID ?= 87
top web: export ROS_AUTOMATIC_DISCOVERY_RANGE ?= LOCALHOST
test test-unit test-nodes check examples fuzz: export ROS_DOMAIN_ID = 88
bench-pipeline bench-diagnostics bench-failover bench-recorder bench-cameras bench-governor bench-web soak chaos evaluate-schedule: export ROS_DOMAIN_ID = 89
demo test test-unit test-nodes check examples fuzz bench-pipeline bench-diagnostics bench-failover bench-recorder bench-cameras bench-governor bench-web soak chaos evaluate-schedule: export ROS_AUTOMATIC_DISCOVERY_RANGE = LOCALHOST

# The ROS wheels set this marker in the environment; with it, another Python does not find its libraries.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE
# The ROS wheels include one middleware only.
ifndef AMENT_PREFIX_PATH
unexport RMW_IMPLEMENTATION
endif

.DEFAULT_GOAL := help
.PHONY: help demo test test-unit test-nodes check format lint types examples docs docs-serve reference bench-pipeline bench-gate bench-backends bench-diagnostics bench-failover bench-recorder bench-cameras bench-device bench-governor bench-pipelining bench-low-score bench-masks bench-accuracy bench-tracking bench-foreign bench-updates bench-ray bench-fleet bench-web bench-train bench-headline soak fuzz chaos evaluate-gate evaluate-cascade evaluate-schedule optimize-demo top web setup setup-clips setup-test setup-bench setup-evaluate setup-optimize setup-train setup-top setup-web setup-bag setup-docs lock clean distclean

help:  ## List the commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  make demo SOURCE=clip.mp4 BACKEND=openvino SECONDS=20 OUT=out/mine     variables of the demo"
	@echo "  make demo PRESET=economy MODEL=mine PARAMS='gate:max_delay_ms:=200'    PARAMS: or a parameter file"
	@echo "  make test ARGS='-k gate -x'                                            options for pytest"
	@echo "  make test WORKERS=0                                                    tests one after the other, in one process"
	@echo "  make evaluate-gate ARGS='--conditions pan_tilt --quick'                options of the evaluation"
	@echo "  make soak MINUTES=1                                                    a short run"
	@echo "  make fuzz MINUTES=5 ARGS='--targets images graphs'                     some targets of the fuzzer"
	@echo "  make fuzz ARGS='--count 10000'                                         10,000 mutants of each target"
	@echo "  make chaos ARGS='--scenarios kill disk_full'                           some disturbances of the pipeline"
	@echo "  make demo PYTHON=python3.12                                            another Python"

BAG = $(or $(findstring .mcap,$(SOURCE)),$(findstring .db3,$(SOURCE)),$(findstring .bag,$(SOURCE)))
DEMO = $(VENV_PYTHON) -m edge_vision demo $(if $(SOURCE),--source '$(SOURCE)') $(if $(BACKEND),--backend $(BACKEND)) \
	$(if $(MODEL),--model '$(MODEL)') $(if $(PRESET),--preset '$(PRESET)') $(if $(PARAMS),--params $(PARAMS)) \
	$(if $(OUT),--out '$(OUT)') $(if $(SECONDS),--seconds $(SECONDS))
demo: setup $(if $(BAG),setup-bag)  ## Set up, then compare every-frame detection with edge_vision on a clip; results in out/demo/
	$(DEMO)

test: setup-test  ## Set up, then run all tests
	$(PYTEST) $(ARGS)

# For local use: unit tests compute, tests of nodes mostly wait.
test-unit: setup-test
	$(PYTEST) test/unit $(ARGS)

test-nodes: setup-test
	$(PYTEST) test/nodes test/e2e test/launch $(ARGS)

check: setup-test  ## Format, lint, types, tests and examples: everything that must pass before a commit
	scripts/check

format: setup-test  ## Format all Python files
	$(VENV_PYTHON) -m ruff format .
	$(VENV_PYTHON) -m ruff check --fix .

lint: setup-test  ## Check formatting and lint rules
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m ruff check .

types: setup-test  ## Check the types
	scripts/types

examples: setup-test  ## Run every example
	$(VENV_PYTHON) examples/check.py

reference: setup  ## Generate docs/parameters.md, docs/topics.md and config/pipeline.yaml from the code
	$(VENV_PYTHON) -m scripts.reference --write

docs: setup-docs reference  ## Build the documentation site; result in out/docs/
	NO_MKDOCS_2_WARNING=1 $(VENV_PYTHON) -m mkdocs build --strict

docs-serve: setup-docs  ## Serve the documentation site on http://127.0.0.1:8000
	NO_MKDOCS_2_WARNING=1 $(VENV_PYTHON) -m mkdocs serve --strict

bench-pipeline: setup-clips  ## Measure the pipeline; results in out/bench/pipeline.json
	$(VENV_PYTHON) bench/pipeline.py $(ARGS)

bench-gate: setup-clips  ## Measure the gate; results in out/bench/gate.json
	$(VENV_PYTHON) bench/gate.py $(ARGS)

bench-backends: setup-bench  ## Compare the runtimes, and PyTorch; results in out/bench/backends.json
	$(VENV_PYTHON) bench/backends.py $(ARGS)

bench-diagnostics: setup-test  ## Measure the diagnostics; results in out/bench/diagnostics.json
	$(VENV_PYTHON) bench/diagnostics.py --minutes $(MINUTES) $(ARGS)

bench-governor: setup-clips  ## Measure whether a budget of CPU time is kept; results in out/bench/governor.json
	$(VENV_PYTHON) bench/governor.py $(ARGS)

bench-pipelining: setup-clips  ## Measure whether preprocessing the next frame in parallel pays; results in out/bench/pipelining.json
	$(VENV_PYTHON) bench/pipelining.py $(ARGS)

bench-low-score: setup-evaluate  ## Measure what low-score detections predict; results in out/bench/low_score.json
	$(VENV_PYTHON) bench/low_score.py $(ARGS)

bench-masks: setup  ## Measure what masks cost; results in out/bench/masks.json
	$(VENV_PYTHON) bench/masks.py $(ARGS)

bench-accuracy: setup-evaluate setup-optimize  ## Accuracy and cost of all detectors against labels (200 MB); results in out/bench/accuracy.json
	$(VENV_PYTHON) -m edge_vision models fetch centernet movenet
	$(VENV_PYTHON) bench/accuracy.py $(ARGS)

bench-foreign: setup-evaluate setup-optimize  ## Optimize graphs of other detectors (145 MB); results in out/bench/foreign.json
	$(VENV_PYTHON) -m edge_vision models fetch centernet
	$(VENV_PYTHON) bench/foreign.py $(ARGS)

bench-tracking: setup-evaluate  ## Compare tracks with held boxes on real clips; results in out/bench/tracking.json
	$(VENV_PYTHON) bench/tracking.py $(ARGS)

bench-updates: setup-test  ## Attack and kill model updates; results in out/bench/updates.json
	$(VENV_PYTHON) bench/updates.py $(ARGS)

bench-ray: setup-clips  ## Compare one and two hosts of a Ray cluster, needs root and Ray; results in out/bench/ray_hosts.json
	$(VENV_PYTHON) bench/ray_hosts.py $(ARGS)

bench-fleet: setup-test  ## Simulate a fleet of 10,000 robots; results in out/bench/fleet.json
	$(VENV_PYTHON) bench/fleet.py $(ARGS)

bench-train: setup-train  ## Train bundles on the public clips against PTQ; results in out/train/report.json
	$(VENV_PYTHON) bench/train.py $(ARGS)

bench-web: setup-test  ## Measure the live page with three browsers; results in out/bench/web.json
	$(VENV_PYTHON) bench/web.py $(ARGS)

bench-headline: setup-evaluate setup-train  ## What gate, cascade and a trained student save together; results in out/bench/headline.json
	$(VENV_PYTHON) bench/headline.py $(ARGS)

bench-failover: setup-test  ## Measure the time until another backend or model serves; results in out/bench/failover.json
	$(VENV_PYTHON) bench/failover.py $(ARGS)

bench-recorder: setup-test  ## Measure the flight recorder, and kill it; results in out/bench/recorder.json
	$(VENV_PYTHON) bench/recorder.py $(ARGS)

.PHONY: bench-remote
bench-remote: export ROS_DOMAIN_ID = 89
bench-remote: export ROS_AUTOMATIC_DISCOVERY_RANGE = LOCALHOST
bench-remote: setup-test  ## Measure inference on a server; results in out/bench/remote.json
	$(VENV_PYTHON) bench/remote.py $(ARGS)

bench-cameras: setup-clips  ## Measure four cameras with one detector; results in out/bench/cameras.json
	$(VENV_PYTHON) bench/cameras.py $(ARGS)

bench-device: setup-clips  ## Compare measurements over SSH with local ones (needs sshd); results in out/bench/device.json
	$(VENV_PYTHON) bench/remote_device.py $(ARGS)

fuzz: setup-test  ## Fuzz manifests, graphs, images, parameters and messages for MINUTES=10; results in out/fuzz/report.json
	$(VENV_PYTHON) test/fuzz/fuzz.py --minutes $(MINUTES) $(ARGS)

chaos: setup-test  ## Kill, stop, overload ... the pipeline for MINUTES=10; results in out/chaos/report.json
	$(VENV_PYTHON) test/chaos/chaos.py --minutes $(MINUTES) $(ARGS)

soak: setup-clips  ## Overload the pipeline for MINUTES=10; results in out/bench/soak.json
	$(VENV_PYTHON) bench/soak.py --minutes $(MINUTES) $(ARGS)

evaluate-schedule: setup-evaluate  ## Compare the presets with fixed intervals on real clips; results in out/schedule/
	$(VENV_PYTHON) -m edge_vision evaluate schedule $(if $(OUT),--out '$(OUT)') $(ARGS)

evaluate-gate: setup-evaluate  ## Compare the gate with every-frame detection and baselines; results in out/gate/
	$(VENV_PYTHON) -m edge_vision evaluate gate $(if $(OUT),--out '$(OUT)') $(ARGS)

evaluate-cascade: setup-evaluate  ## Compare the whole chain with every-frame detection and baselines; results in out/cascade/
	$(VENV_PYTHON) -m edge_vision evaluate cascade $(if $(OUT),--out '$(OUT)') $(ARGS)

optimize-demo: setup-optimize  ## Optimize ssdlite_mobilenet_v2_coco for this device; results in out/optimize/
	$(VENV_PYTHON) -m edge_vision optimize demo --out $(if $(OUT),'$(OUT)',out/optimize)

web: setup-web  ## Show the pipeline of `make demo` in the browser, or that of your ROS_DOMAIN_ID
	@$(VENV_PYTHON) -m edge_vision web $(ARGS)

top: setup-top  ## Show the pipeline of `make demo` live in another terminal, or that of your ROS_DOMAIN_ID
	@$(VENV_PYTHON) -m edge_vision top $(ARGS)

setup:  ## Set up .venv, a video and the model for `make demo`
	@$(SETUP) demo $(if $(BACKEND),--backend $(BACKEND))

setup-clips:
	@$(SETUP) clips

setup-test:
	@$(SETUP) test

setup-bench:
	@$(SETUP) bench

setup-evaluate:
	@$(SETUP) evaluate

setup-optimize:
	@$(SETUP) optimize

setup-train:  ## Install what `optimize train`, `search` and `auto` need: PyTorch for the CPU
	@$(SETUP) train

setup-top:
	@$(SETUP) top

setup-web:
	@$(SETUP) web

setup-bag:
	@$(SETUP) bag

setup-docs:
	@$(SETUP) docs

lock:  ## Pin the newest packages that requirements/*.in allows
	scripts/lock

clean:  ## Remove results and build folders
	rm -rf out build

distclean: clean  ## Also remove .venv; the cache with the downloads remains
	rm -rf .venv
