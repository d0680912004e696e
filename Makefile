# Everything runs in .venv, which is made on first use and again when the requirements change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
unexport PYTHONDONTWRITEBYTECODE  # tests start hundreds of processes: the package is compiled once, not by each of them

.PHONY: bench bench-statistics demo docs gallery gpu test test-benchmarks test-datasets test-slurm test-slurm-full test-trackers lint names suite clean

$(VENV)/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/ready  ## the main job: three optimizers on scikit-learn's digits, a table and two figures
	$(BIN)/deit-ablate run sweeps/optimizers.yaml

gallery: $(VENV)/ready  ## every shipped study (11 hours of two slow cores, 4 to 5 of them Table 8), and docs/gallery.md from them
	$(BIN)/python docs/make_gallery.py --commands | while read -r line; do $(BIN)/$$line --yes </dev/null || exit 1; done
	$(BIN)/python docs/make_gallery.py

test: $(VENV)/ready  ## lint and the whole suite, side by side: a type checker is one process
	$(MAKE) --jobs 2 lint suite

suite: $(VENV)/ready
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test-benchmarks: $(VENV)/ready  ## whether benchmarks/ runs, in small, and what it simulates is as expected
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal tests/benchmarks

test-trackers: $(VENV)/ready  ## experiment trackers, all of them, which it installs; MLflow on a server too (a minute)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,trackers]' mlflow
	$(BIN)/python -m pytest tests/report/trackers tests/servers

test-datasets: $(VENV)/ready  ## data sets in the format of Hugging Face, whose library it installs
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,datasets]'
	$(BIN)/python -m pytest tests/train/data/test_hub.py tests/worker/test_hashes.py

test-slurm: $(VENV)/ready  ## the suite on two real SLURM clusters, which it installs (Debian), starts and stops; needs root
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal tests/slurm

test-slurm-full: $(VENV)/ready  ## the same, minutes of random failures, and a cluster with accounting
	$(BIN)/python -m pytest tests/slurm -m 'storm or not storm'

bench: $(VENV)/ready  ## ratios of speed: steps, whole runs, a teacher's students, JPEG files, the engine (ten minutes)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/speed
	test ! -f benchmarks/engine.py || OMP_NUM_THREADS=1 $(BIN)/python benchmarks/engine.py

bench-statistics: $(VENV)/ready  ## simulated error rates, power and cost of verdicts, and of whole stores (half an hour)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/error_rates.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/end_to_end.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/campaigns.py

gpu: $(VENV)/ready  ## what needs a GPU: tests on the GPUs there are, then images a second (a quarter of an hour)
	$(BIN)/python -m pytest tests/gpu
	$(BIN)/python benchmarks/gpu.py

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/ready  ## the documentation's site, in build/site (`.venv/bin/python -m http.server -d build/site` serves it)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m mkdocs build --strict

names: $(VENV)/ready  ## what is generated from the code: the names that recipes may use, the schemas of sweep files
	$(BIN)/python -c 'import json; from deit_ablate.execution import worker_answers as ask; \
	  print(json.dumps(*ask("offered"), indent=1, sort_keys=True))' > deit_ablate/names.json.new && mv deit_ablate/names.json.new deit_ablate/names.json
	$(BIN)/deit-ablate schema sweep > sweeps/sweep.schema.json
	$(BIN)/deit-ablate schema profile > sweeps/profiles/profile.schema.json

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
