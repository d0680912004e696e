# make reproduce                            train one cell anew, in an environment of its own
# make reproduce ARGS="--run baseline:0"    another one; --data-dir, --device and --loaders are options too
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
ARGS ?=

.PHONY: reproduce
reproduce: $(VENV)/ready
	"$(VENV)/bin/deit-ablate" reproduce . $(ARGS)

$(VENV)/ready: requirements.lock.txt
	test -x "$(VENV)/bin/python" || $(PYTHON) -m venv "$(VENV)"
	"$(VENV)/bin/python" -m pip install $(PIP_ARGS) --requirement requirements.lock.txt
	touch "$(VENV)/ready"
