# Every command of the project. CI calls the same targets.
#   make          the environment, then the search of nas.yaml: phantoms, CPU, all five encoders of the paper
#   make test     the environment, then the tests of every change, in JOBS processes: minutes
#   make soak     the tests that kill, cut and fill for longer than that, one after the other
# Settings: VENV (folder of the environment), PYTHON (interpreter to make it with), EXTRAS, SPACE (the study),
#   ARGS (passed to the search), JOBS (processes that test).

VENV ?= .venv
EXTRAS ?= study,dev,codecs,figures,clinic
SPACE ?= nas.yaml
ARGS ?=
JOBS ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: study test soak quick lint types imports check format tree environment clean help

study: environment
	$(BIN)/python -m search.run --space $(SPACE) $(ARGS)

# What needs Ray comes after the rest: a machine bears one Ray. A file's tests stay in one process, with its fixtures.
test: environment
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not ray and not soak"
	$(BIN)/python -m pytest -m "ray and not soak"

soak: environment
	$(BIN)/python -m pytest -m soak

quick: environment
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not ray and not slow and not soak"

lint: environment
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: environment
	$(BIN)/mypy

imports: environment
	$(BIN)/lint-imports

check: lint types imports test

format: environment
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The file tree of docs/layout.md, from what each file says of itself.
tree: environment
	$(BIN)/python -m tests.file_tree

environment: $(STAMP)

# Made anew when pyproject.toml or constraints.txt change; the stamp is written last, so a broken install is not one.
$(STAMP): pyproject.toml constraints.txt
	@set -e; python='$(PYTHON)'; \
	for candidate in $${python:-python3 python3.13 python3.12 python3.11}; do \
	    if "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; \
	    then python="$$candidate"; found=yes; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
	    echo "make: Python 3.11, 3.12 or 3.13 is needed, and none of" \
	         "$${python:-python3, python3.13, python3.12, python3.11} is one." \
	         "Install one, or name it: make PYTHON=/path/of/python3.13" >&2; exit 1; \
	fi; \
	echo "environment: $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv "$(VENV)" || { \
	    echo "make: $$python cannot make an environment; on Debian and Ubuntu install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --retries 10 -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

clean:
	rm -rf "$(VENV)"

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile
