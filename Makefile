# `make demo` goes from a clone to a scored model. Each target that needs .venv installs it first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)
STAMP := $(VENV)/.installed

# Options of the tables: make tables DATA=PATH SCALE=small SEEDS=5
DATA ?=
SCALE ?= small
SEEDS ?= 3
LAUNCHER ?= joblib
# Embedded data: 5,000 validation images of 64×64, 1,000 of them for each point of the learning curve. Batches are small:
# with larger ones, the seed decides when a network leaves its first plateau (experiments/LOG.md).
ifeq ($(DATA),)
DATA_ARGS := data.validation_size=5000 data.image_size=64
ARGS := scale=$(SCALE) $(DATA_ARGS) batch_size=16 trainer.curve_images=1000
CONTROLS := table6_controls
else
DATA_ARGS := data=$(if $(wildcard $(DATA)/train.csv),unibuc,folder) 'data.root="$(DATA)"'
ARGS := scale=$(SCALE) $(DATA_ARGS)
CONTROLS :=
endif
SWEEP = $(BIN)/python -m deepfake_cls.train launcher=$(LAUNCHER) $(ARGS) 'seed=range($(SEEDS))'
KNN = $(BIN)/python -m deepfake_cls.knn experiment=table1_knn $(DATA_ARGS)
STATISTICS = $(BIN)/python -m deepfake_cls.statistics experiment=table1_statistics $(DATA_ARGS)
RENDER = $(BIN)/python -m deepfake_cls.report $(ARGS) output=reports/tables

.PHONY: help setup demo checks test test-fast test-all coverage test-gpu test-cluster bench dashboard report tables reference clean $(addprefix table,1 2 3 4 5 6 7 8 9 10 11)

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

setup: $(STAMP)  ## virtual environment .venv with everything installed

# uv if it is installed, else pip; constraints.txt has the tested versions. uv compiles bytecode only on request: without
# it the first start (under PYTHONDONTWRITEBYTECODE: each start) compiles torch.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python 3.10 or newer is needed, $(PYTHON) is older; try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
ifeq ($(UV),)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
else
	test -x $(BIN)/python || $(UV) venv -q --python $(PYTHON) $(VENV)
	$(UV) pip install -q --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[dev]'
endif
	@touch $@

demo: $(STAMP)  ## embedded data, KNN and CNN, one page: reports/demo/index.html
	$(BIN)/python -m deepfake_cls.knn
	$(BIN)/python -m deepfake_cls.train scale=tiny epochs=10
	$(BIN)/python -m deepfake_cls.report output=reports/demo
	@echo "open reports/demo/index.html"

# If all runs exist, nothing is trained. If a job fails, the other jobs run, its cell is a dash, and the exit status is 1.
define TABLE
@$(RENDER) $(1) require=$(SEEDS) 2>/dev/null && exit 0; \
status=0; $(2) $(RENDER) $(1) || status=1; exit $$status
endef
knn_runs = $(KNN) || status=1; $(STATISTICS) || status=1;
main_runs = $(SWEEP) -m || status=1;
sweeps = for experiment in $(1); do $(SWEEP) experiment=$$experiment || status=1; done;
ALPHA := table6_alpha $(CONTROLS)

tables: $(STAMP)  ## all tables and figures of the paper: reports/tables/index.html (DATA=PATH SCALE=small SEEDS=3)
	$(call TABLE,,$(knn_runs) $(call sweeps,$(ALPHA) table10_components table4_lr table5_dropout))

table1: $(STAMP)  ## one table; also table2 to table11
	$(call TABLE,table=1,$(knn_runs))
table2 table3: $(STAMP)
	@$(RENDER) table=$(@:table%=%)
table4: $(STAMP)
	$(call TABLE,table=4,$(call sweeps,table4_lr))
table5: $(STAMP)
	$(call TABLE,table=5,$(call sweeps,table5_dropout))
table6: $(STAMP)
	$(call TABLE,table=6,$(call sweeps,$(ALPHA)))
table7: $(STAMP)
	$(call TABLE,table=7,$(knn_runs) $(main_runs))
table8 table9: $(STAMP)
	$(call TABLE,table=$(@:table%=%),$(main_runs))
table10: $(STAMP)
	$(call TABLE,table=10,$(call sweeps,table10_components))

table11: $(STAMP)
	$(call TABLE,table=11,$(call sweeps,table11_best))

# 270 MB: two checkpoints of the network with its optimiser state. A finished run is skipped, an interrupted one resumes.
EXTRA ?=
REFERENCE := scale=reference $(DATA_ARGS) $(EXTRA)
reference: $(STAMP)  ## arms of tables 4 to 6 at the paper's scale, for a GPU: reports/reference (DATA=PATH SEEDS=3 EXTRA=OVERRIDES)
	@echo "$$((7 * $(SEEDS))) runs one after another, about $$((7 * $(SEEDS) * 270)) MB in runs/"
	@status=0; $(knn_runs) seed=0; while [ $$seed -lt $(SEEDS) ]; do for experiment in table6_alpha table5_dropout table4_lr; do \
	$(BIN)/python -m deepfake_cls.train experiment=$$experiment seed=$$seed $(REFERENCE) || status=1; done; seed=$$((seed + 1)); done; \
	$(BIN)/python -m deepfake_cls.report $(REFERENCE) output=reports/reference || status=1; exit $$status

report: $(STAMP)  ## one page about all runs: reports/index.html
	$(BIN)/python -m deepfake_cls.report

dashboard: $(STAMP)  ## TensorBoard over runs/
	$(BIN)/tensorboard --logdir runs

# One worker for each core, with one thread each: on two cores, two workers with two threads each are slower.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 4 --dist worksteal

checks: $(STAMP)  ## ruff, mypy strict, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

test: checks  ## checks and the test suite without the slow tests
	$(PYTEST) -m "not slow and not cluster"

# Files of which test-fast would skip most tests, or which take more than a few seconds.
LONG := report models/test_resnet.py training/test_fit.py test_notebooks.py test_train.py
test-fast: checks  ## checks and the tests that neither train, start processes nor take long
	$(PYTEST) -m "not slow and not cluster" --fast -rfE -k "not coverage" $(addprefix --ignore tests/,$(LONG))

test-all: checks  ## checks and all tests that need no GPU and no cluster
	$(PYTEST)

coverage: $(STAMP)  ## lines and branches that all tests cover; slower than test-all
	$(PYTEST) --cov --cov-report=term:skip-covered

test-gpu: $(STAMP)  ## the tests that need an NVIDIA GPU
	DEEPFAKE_CLS_TEST_CUDA=1 $(BIN)/pytest -m cuda tests

# Without the constraints: the Ray launcher needs an older cloudpickle than constraints.txt has.
test-cluster: $(STAMP)  ## sweeps through SLURM and Ray, started on this machine
ifeq ($(UV),)
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[slurm,ray]'
else
	$(UV) pip install -q --compile-bytecode --python $(BIN)/python -e '.[slurm,ray]'
endif
	$(BIN)/pytest -m cluster tests/cluster

bench: $(STAMP)  ## speed compared with baselines, at most 15 minutes on two cores: benchmarks/results/speed_<CPU>.md (DATA=PATH)
ifeq ($(UV),)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[bench]'
else
	$(UV) pip install -q --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[bench]'
endif
	$(BIN)/python -m benchmarks.speed $(if $(DATA),--data "$(DATA)")

clean:  ## remove the virtual environment, runs and reports
	rm -rf $(VENV) runs reports
