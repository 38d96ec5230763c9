# `make demo`, `make app` and `make test` do all the set-up they need.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin

.PHONY: demo app test lint clean

demo: $(VENV)/.installed
	$(RUN)/python scripts/demo/make_demo.py

# The page, on what the demo trained; on other sounds: scripts/app.py --help
app: $(VENV)/.installed
	test -f runs/demo/test_results.json || $(RUN)/python scripts/demo/make_demo.py
	$(RUN)/python scripts/app.py

test: $(VENV)/.installed lint
	$(RUN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.installed
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mlinter modeling_cnn10bert --no-progress --no-cache
	$(RUN)/mypy

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) runs
