# make demo:         train, evaluate, export and search on drawn images, from nothing, in minutes
# make check:        linter, types and the fast tests, before every commit
# make test:         the whole test suite on the default stack; make test-tfa: on the second one
# make test-engines: one suite over FAISS, Milvus and PostgreSQL, without TensorFlow
# make fuzz:         two minutes of damaged files for every reader (SECONDS=3600, SEED=1)
# make gpu:          benchmarks and tests that need a GPU, on the default stack
# make format:       formats all files
PYTHON ?= python3
# Processes that run tests. What many tests share (a trained run, its export) is made by one of them.
JOBS ?= 2
PYTEST = -m pytest -n $(JOBS) --dist=worksteal
.PHONY: demo check test test-tfa test-engines fuzz gpu lint types format clean

.venv/.installed: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -q -r requirements.txt -r requirements-dev.txt
	touch $@

.venv-tfa/.installed: requirements-tfa.txt requirements-dev.txt
	$(PYTHON) -m venv .venv-tfa
	.venv-tfa/bin/pip install -q -r requirements-tfa.txt -r requirements-dev.txt
	touch $@

.venv-engines/.installed: requirements-engines.txt requirements-milvus.txt requirements-pgvector.txt
	$(PYTHON) -m venv .venv-engines
	.venv-engines/bin/pip install -q -r requirements-engines.txt
	touch $@

demo: .venv/.installed
	.venv/bin/python scripts/make_scenes.py --out=data/scenes --count=2000 --seed=0
	.venv/bin/python scripts/train.py --flagfile=demo.flags --overwrite
	.venv/bin/python scripts/export.py --run_dir=runs/demo --export_dir=savedmodels/demo
	.venv/bin/python scripts/search.py --run_dir=runs/demo --export_dir=savedmodels/demo
	@echo
	@echo "table:         runs/demo/results.csv and results.json"
	@echo "plots:         runs/demo/curves.png   (and: .venv/bin/tensorboard --logdir runs)"
	@echo "contact sheet: runs/demo/queries.png"
	@echo "encoders:      savedmodels/demo/{image_encoder,text_encoder}"

check: lint types
	.venv/bin/python $(PYTEST) -m "not slow"

test: .venv/.installed
	.venv/bin/python $(PYTEST)

test-tfa: .venv-tfa/.installed
	.venv-tfa/bin/python $(PYTEST)

# Without conftest.py, which needs TensorFlow.
test-engines: .venv-engines/.installed
	.venv-engines/bin/python -m pytest --noconftest tests/index/test_engines.py

SECONDS ?= 120
SEED ?= 0
fuzz: .venv/.installed
	.venv/bin/python tests/fuzz/run.py --seconds=$(SECONDS) --seed=$(SEED)

gpu: .venv/.installed
	.venv/bin/python benchmarks/gpu.py
	.venv/bin/python -m pytest tests/test_gpu.py

lint: .venv/.installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: .venv/.installed
	.venv/bin/mypy

format: .venv/.installed
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean:
	rm -rf .venv .venv-tfa .venv-engines runs data/scenes cache savedmodels/demo
