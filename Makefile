# `make demo` and `make test` do all the set-up they need.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin

.PHONY: demo test lint clean

demo: $(VENV)/.installed
	$(RUN)/python scripts/demo.py

test: $(VENV)/.installed lint
	$(RUN)/python -m pytest

lint: $(VENV)/.installed
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mlinter modeling_cnn10bert --no-progress --no-cache

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) runs
