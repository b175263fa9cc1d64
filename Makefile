# One command from nothing to a scored model: `make demo`. Everything here sets itself up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)
STAMP := $(VENV)/.installed

.PHONY: help setup demo test test-cluster check dashboard report clean

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
