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

.PHONY: help setup demo test test-cluster dashboard report tables clean $(addprefix table,1 2 3 4 5 6 7 8 9 10)

help:  ## what there is
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

setup: $(STAMP)  ## virtual environment .venv with everything installed

# uv where there is one (four times faster), else pip; constraints.txt names the versions that were tested.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python 3.10 or newer is needed, $(PYTHON) is older; try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
ifeq ($(UV),)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
else
	test -x $(BIN)/python || $(UV) venv -q --python $(PYTHON) $(VENV)
	$(UV) pip install -q --python $(BIN)/python -c constraints.txt -e '.[dev]'
endif
	@touch $@

demo: $(STAMP)  ## embedded data, KNN and CNN, one page: reports/demo/index.html
	$(BIN)/python -m deepfake_cls.knn
	$(BIN)/python -m deepfake_cls.train scale=tiny epochs=10
	$(BIN)/python -m deepfake_cls.report output=reports/demo
	@echo "open reports/demo/index.html"

# A failed job leaves a dash in its table and the exit status 1, and stops nothing else.
tables: $(STAMP)  ## all tables and figures of the report: reports/tables/index.html (DATA=PATH SCALE=small SEEDS=3)
	@status=0; $(KNN) || status=1; \
	for experiment in table6_alpha $(CONTROLS) table10_components table4_lr table5_dropout; do \
		$(SWEEP) experiment=$$experiment || status=1; \
	done; \
	$(RENDER) || status=1; exit $$status

table1: $(STAMP)  ## one table; table2 ... table10 likewise
	@status=0; $(KNN) || status=1; $(RENDER) table=1 || status=1; exit $$status

table2 table3: $(STAMP)
	@$(RENDER) table=$(@:table%=%)

table4: EXPERIMENTS := table4_lr
table5: EXPERIMENTS := table5_dropout
table6: EXPERIMENTS := table6_alpha $(CONTROLS)
table10: EXPERIMENTS := table10_components
table4 table5 table6 table10: $(STAMP)
	@status=0; for experiment in $(EXPERIMENTS); do $(SWEEP) experiment=$$experiment || status=1; done; \
	$(RENDER) table=$(@:table%=%) || status=1; exit $$status

table7: $(STAMP)
	@status=0; $(KNN) || status=1; $(SWEEP) -m || status=1; $(RENDER) table=7 || status=1; exit $$status

table8 table9: $(STAMP)
	@status=0; $(SWEEP) -m || status=1; $(RENDER) table=$(@:table%=%) || status=1; exit $$status

report: $(STAMP)  ## the page over all runs: reports/index.html
	$(BIN)/python -m deepfake_cls.report

dashboard: $(STAMP)  ## TensorBoard over runs/
	$(BIN)/tensorboard --logdir runs

test: $(STAMP)  ## checks and the test suite
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest --cov --cov-report=term:skip-covered

# Without the constraints: the launcher for Ray asks for an older cloudpickle than all else takes.
test-cluster: $(STAMP)  ## sweeps through a SLURM and a Ray of this machine's own
ifeq ($(UV),)
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[slurm,ray]'
else
	$(UV) pip install -q --python $(BIN)/python -e '.[slurm,ray]'
endif
	$(BIN)/pytest -m cluster tests/cluster

clean:  ## remove the virtual environment, runs and reports
	rm -rf $(VENV) runs reports
