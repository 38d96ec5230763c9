# `make demo`, `make app` and `make test` install what they need, and no more, into VENV.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin

.PHONY: demo app test lint clean

demo: $(VENV)/.installed-demo
	$(RUN)/python scripts/demo/make_demo.py

# The page, on what the demo trained; on other sounds: cnn10bert page --help
app: $(VENV)/.installed-demo $(VENV)/.installed-app
	test -f runs/demo/test_results.json || $(RUN)/python scripts/demo/make_demo.py
	$(RUN)/python scripts/app.py

test: $(VENV)/.installed-test lint
	$(RUN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.installed-test
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mlinter modeling_cnn10bert --no-progress --no-cache
	$(RUN)/mypy

# The package with one of the extras of pyproject.toml.
$(VENV)/.installed-%: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --editable ".[$*]"
	touch $@

clean:
	rm -rf $(VENV) runs
