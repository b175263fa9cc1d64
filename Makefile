# One command from nothing to a scored model: `make demo`. Everything here sets itself up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)
STAMP := $(VENV)/.installed

# make tables DATA=PATH SCALE=small SEEDS=5
DATA ?=
SCALE ?= small
SEEDS ?= 3
LAUNCHER ?= joblib
# Embedded data: 5,000 images of 64×64 for the result, 1,000 of them for each point of the learning curve; small batches,
# since with few images a seed otherwise decides when a network leaves its first plateau (experiments/LOG.md).
ifeq ($(DATA),)
DATA_WORDS := data.validation_size=5000 data.image_size=64
WORDS := scale=$(SCALE) $(DATA_WORDS) batch_size=16 trainer.curve_images=1000
CONTROLS := table6_controls
else
DATA_WORDS := data=$(if $(wildcard $(DATA)/train.csv),unibuc,folder) 'data.root="$(DATA)"'
WORDS := scale=$(SCALE) $(DATA_WORDS)
CONTROLS :=
endif
SWEEP = $(BIN)/python -m deepfake_cls.train launcher=$(LAUNCHER) $(WORDS) 'seed=range($(SEEDS))'
KNN = $(BIN)/python -m deepfake_cls.knn experiment=table1_knn $(DATA_WORDS)
RENDER = $(BIN)/python -m deepfake_cls.report $(WORDS) output=reports/tables

.PHONY: help setup demo test coverage test-gpu test-cluster bench dashboard report tables clean $(addprefix table,1 2 3 4 5 6 7 8 9 10)

help:  ## what there is
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

setup: $(STAMP)  ## virtual environment .venv with everything installed

# uv where there is one, else pip; constraints.txt names the versions that were tested. Bytecode is compiled here, as pip
# does by itself: otherwise the first start, or every one under PYTHONDONTWRITEBYTECODE, compiles torch again.
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

# Where the runs are there, a table takes seconds and trains nothing. A failed job leaves a dash in its table and the exit
# status 1, and stops nothing else.
define TABLE
@$(RENDER) $(1) require=$(SEEDS) 2>/dev/null && exit 0; \
status=0; $(2) $(RENDER) $(1) || status=1; exit $$status
endef
knn_runs = $(KNN) || status=1;
central_runs = $(SWEEP) -m || status=1;
arms = for experiment in $(1); do $(SWEEP) experiment=$$experiment || status=1; done;
ALPHA := table6_alpha $(CONTROLS)

tables: $(STAMP)  ## all tables and figures of the report: reports/tables/index.html (DATA=PATH SCALE=small SEEDS=3)
	$(call TABLE,,$(knn_runs) $(call arms,$(ALPHA) table10_components table4_lr table5_dropout))

table1: $(STAMP)  ## one of them; table2 ... table10 likewise
	$(call TABLE,table=1,$(knn_runs))
table2 table3: $(STAMP)
	@$(RENDER) table=$(@:table%=%)
table4: $(STAMP)
	$(call TABLE,table=4,$(call arms,table4_lr))
table5: $(STAMP)
	$(call TABLE,table=5,$(call arms,table5_dropout))
table6: $(STAMP)
	$(call TABLE,table=6,$(call arms,$(ALPHA)))
table7: $(STAMP)
	$(call TABLE,table=7,$(knn_runs) $(central_runs))
table8 table9: $(STAMP)
	$(call TABLE,table=$(@:table%=%),$(central_runs))
table10: $(STAMP)
	$(call TABLE,table=10,$(call arms,table10_components))

report: $(STAMP)  ## the page over all runs: reports/index.html
	$(BIN)/python -m deepfake_cls.report

dashboard: $(STAMP)  ## TensorBoard over runs/
	$(BIN)/tensorboard --logdir runs

test: $(STAMP)  ## checks and the test suite
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/pytest

coverage: $(STAMP)  ## the test suite with the lines and branches that it covers, which takes longer
	$(BIN)/pytest --cov --cov-report=term:skip-covered

test-gpu: $(STAMP)  ## the tests that want an NVIDIA GPU
	DEEPFAKE_CLS_TEST_CUDA=1 $(BIN)/pytest -m cuda tests

# Without the constraints: the launcher for Ray asks for an older cloudpickle than all else takes.
test-cluster: $(STAMP)  ## sweeps through a SLURM and a Ray of this machine's own
ifeq ($(UV),)
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[slurm,ray]'
else
	$(UV) pip install -q --compile-bytecode --python $(BIN)/python -e '.[slurm,ray]'
endif
	$(BIN)/pytest -m cluster tests/cluster

bench: $(STAMP)  ## speed beside other ways, at most 15 minutes on two cores: benchmarks/results/speed_<CPU>.md (DATA=PATH)
ifeq ($(UV),)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[bench]'
else
	$(UV) pip install -q --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[bench]'
endif
	$(BIN)/python -m benchmarks.speed $(if $(DATA),--data "$(DATA)")

clean:  ## remove the virtual environment, runs and reports
	rm -rf $(VENV) runs reports
