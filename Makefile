# make demo: train, evaluate, export and query on drawn pictures, from nothing, in minutes
# make test: the whole test suite on the default stack; make test-tfa: on the second one
PYTHON ?= python3
.PHONY: demo test test-tfa lint clean

.venv/.installed: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -q -r requirements.txt -r requirements-dev.txt
	touch $@

.venv-tfa/.installed: requirements-tfa.txt requirements-dev.txt
	$(PYTHON) -m venv .venv-tfa
	.venv-tfa/bin/pip install -q -r requirements-tfa.txt -r requirements-dev.txt
	touch $@

demo: .venv/.installed
	.venv/bin/python scripts/make_scenes.py --out=data/scenes --count=2000 --seed=0
	.venv/bin/python scripts/train.py --flagfile=demo.flags --overwrite
	.venv/bin/python scripts/export.py --run_dir=runs/demo --export_dir=savedmodels/demo
	.venv/bin/python scripts/query.py --run_dir=runs/demo --export_dir=savedmodels/demo
	@echo
	@echo "table:         runs/demo/results.csv and results.json"
	@echo "plots:         runs/demo/curves.png   (and: .venv/bin/tensorboard --logdir runs)"
	@echo "contact sheet: runs/demo/queries.png"
	@echo "encoders:      savedmodels/demo/{image_encoder,text_encoder}"

test: .venv/.installed
	.venv/bin/python -m pytest

test-tfa: .venv-tfa/.installed
	.venv-tfa/bin/python -m pytest

lint: .venv/.installed
	.venv/bin/ruff check .

clean:
	rm -rf .venv .venv-tfa runs data/scenes cache savedmodels/demo
