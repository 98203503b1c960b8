# Needs python3 (3.11 or newer) and make; everything else goes into .venv on the first call.
#   make report   the main job on the demo: run, measure, write outputs/reports/<utc>_demo/index.html
#   make test     all tests but those that need a GPU or a browser
#   make browser  the tests that need chromium and npm
#   make bench    every benchmark, into benchmarks/RESULTS.md (some minutes; wants a quiet machine)
#   make gpu      what the card of this machine makes of the full size, appended to benchmarks/RESULTS.md
#   make tuner    the threshold widget alone, in a browser (Voila)
#   make explore  ask the model about images alone, in a browser (Voila)
#   make lab      JupyterLab on the notebooks, opened at the page that says which one answers what
#   make lint     style of code and notebooks
#   make clean    remove .venv (results in outputs/ stay)

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
STRIP  := $(BIN)/nbstripout --extra-keys metadata.language_info
# A worker for each core, each with one thread; tests/conftest.py says which tests stay together.
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 4 --no-loadscope-reorder

.PHONY: report test browser bench gpu tuner explore lab lint format install clean
.DEFAULT_GOAL := report

report: $(READY)
	@$(BIN)/sa2va-lab report

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -ra -m "not gpu and not browser" $(SIDE_BY_SIDE)

browser: $(READY)
	npm ci --prefix tests/browser --no-audit --no-fund
	$(BIN)/python -m pytest -q -ra -m browser

bench: $(READY)
	$(BIN)/python benchmarks/bench.py

gpu: $(READY)
	$(BIN)/python benchmarks/gpu.py

tuner: $(READY)
	$(BIN)/voila notebooks/04_threshold_tuning.ipynb

explore: $(READY)
	$(BIN)/voila notebooks/08_explore.ipynb

lab: $(READY)
	$(BIN)/jupyter lab --notebook-dir=notebooks --LabApp.default_url=/lab/tree/README.ipynb

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(STRIP) --verify notebooks/*.ipynb

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(STRIP) notebooks/*.ipynb

install: $(READY)

# Done again only when a dependency list changes. torch comes first and alone: it is by far the largest, so a broken
# download is repeated without the rest. Debian's python3 may lack ensurepip; then pip is put into .venv from outside.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else \
	  f"Python {v[0]}.{v[1]} found, 3.11 or newer is needed: run make PYTHON=/path/to/python3.11")'
	@echo "Installing into $(VENV) (once; PyTorch is 0.2 to 3 GB, depending on the machine)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 \
	  || $(PYTHON) -m venv --clear $(VENV) >/dev/null 2>&1 \
	  || { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install pip; } \
	  || { echo "No pip could be put into $(VENV): install python3-venv or python3-pip"; rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[notebooks,films,dicom,test]'
	@touch $(READY)

clean:
	rm -rf $(VENV)
