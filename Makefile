# `make help` lists what there is. Everything runs in .venv, which the first target that needs it creates.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test test-joblib test-slurm test-ray test-browser test-notebooks fuzz chaos lint tables figures report docs reproduce bench bench-full-size dose-response pretrain model-report lock

PYTHON := .venv/bin/python
# A uv that runs, from the PATH or else installed beside .venv; never a Python that uv would have to download.
UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo .bootstrap/bin/uv)
export UV_PYTHON_DOWNLOADS := never

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s%s\n", $$1, $$2}' Makefile

demo: .venv/installed ## the main job on three references, its table and its videos (3 minutes)
	$(PYTHON) run.py experiment=demo

# With bytecode, also where it is turned off: else each of some twenty processes compiles the package and the tests.
test: .venv/installed ## all tests but those of launchers, of pages in a browser and `make chaos`
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(PYTHON) -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile

# These take minutes of CPU time. What an engine lacks here is a reason of a skipped test.
ENGINE := OMP_NUM_THREADS=1 $(PYTHON) -m pytest --numprocesses=0 -m engine -rs

test-joblib: .venv/installed ## sweeps by joblib and submitit in processes of this machine (six minutes of two cores)
	$(ENGINE) tests/engines/test_local.py tests/engines/test_together.py

test-slurm: .venv/installed ## sweeps on Slurm clusters that are started here: needs slurmctld, slurmd, munge (ten minutes)
	$(ENGINE) tests/engines/test_slurm.py tests/engines/test_slurm_ddp.py

test-ray: .venv/installed ## sweeps on Ray clusters that are started here (five minutes)
	$(ENGINE) tests/engines/test_ray.py

test-browser: .venv/installed ## report, study and page in Chromium: needs it and the extras `browser` and `ui` (two minutes)
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest --numprocesses=0 -m browser -rs tests/browser

test-notebooks: .venv/installed ## the notebooks of docs/, with few steps (a minute)
	OMP_NUM_THREADS=1 MPLBACKEND=agg $(PYTHON) -m pytest --numprocesses=0 -m notebook tests/test_notebooks.py

fuzz: .venv/installed ## 10,000 damaged files and settings of every kind (ten minutes); `python -m tests.fuzz KIND SEED` repeats one
	OMP_NUM_THREADS=1 $(PYTHON) -m tests.fuzz 10000

chaos: .venv/installed ## a sweep killed at 50 random moments, on a full disk, hanging, four at once (ten minutes)
	OMP_NUM_THREADS=1 $(PYTHON) -m tests.chaos

lint: .venv/installed ## style, types and the order of imports
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

tables: .venv/installed ## the tables in results/ and README's claims from the published rows
	$(PYTHON) -m motionexp.results.tables
	$(PYTHON) -m motionexp.scripts.probe_tables
	$(PYTHON) -m motionexp.scripts.probe_tables experiments/shift.yaml
	$(PYTHON) -m motionexp.scripts.prediction_tables
	$(PYTHON) -m motionexp.scripts.metric_trust
	$(PYTHON) -m motionexp.probes.analysis.linear_tables
	$(PYTHON) -m motionexp.scripts.claims
	$(PYTHON) -m motionexp.results.experiments_page
	$(PYTHON) -m motionexp.results.findings_page

figures: .venv/installed ## the figures in results/ from the published rows
	$(PYTHON) -m motionexp.scripts.probe_figures
	$(PYTHON) -m motionexp.probes.analysis.linear_figures
	$(PYTHON) -m motionexp.probes.analysis.inversion_figures
	$(PYTHON) -m motionexp.results.figures.table_figures

report: .venv/installed ## the published results as pages in outputs/report/: videos, plots, tables (a minute)
	$(PYTHON) -m motionexp.scripts.published_report

# In the order in which they were run: tau_selection chose what tau runs.
REPRODUCED := tau_selection tau tau-again comparison edit-kinds models contrast window soft-window full_rank steps references projections rank length probe-tampering probe-motion probe-guidance linear-probe inversion metric-trust gate any-lora tuned-baseline-search tuned-baseline fewer-steps rank-over-t shift flow-matching

# Without --quiet, with which mkdocs counts no warning as one, so that a broken link passes.
docs: .venv/installed ## the documentation as a site, into site/ (10 s; its search needs a web server)
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build
	@echo "site/index.html; with the search: $(PYTHON) -m http.server --directory site"

reproduce: .venv/installed ## run the published experiments again, into outputs/ (hours)
	for name in $(REPRODUCED); do $(PYTHON) run.py experiment=$$name; done

bench: .venv/installed ## how fast training, sampling, metrics and a probe's tree are here, how training shares cores, how fast rows are read
	$(PYTHON) -m motionexp.scripts.bench
	$(PYTHON) -m motionexp.scripts.bench_probes
	$(PYTHON) -m motionexp.scripts.bench_threads
	$(PYTHON) -m motionexp.scripts.bench_launchers
	$(PYTHON) -m motionexp.scripts.bench_rows

bench-full-size: .venv/installed ## how fast Latte-1 is tuned here at its full size, on a GPU; plans of memory on any machine
	$(PYTHON) -m motionexp.scripts.bench_full_size

dose-response: .venv/installed ## how every metric answers to a known change of growing size (a minute)
	$(PYTHON) -m motionexp.scripts.perturbations

# In this order: each needs what those before it made.
PRETRAIN := videos vae vae3d text_encoder latte unet3d cogvideox "bundle tiny_latte" "bundle tiny_unet3d" \
	"bundle tiny_cogvideox" wan "bundle tiny_wan" clip preference_model classifier

pretrain: .venv/installed ## train the bundled models from nothing; stopped, it goes on (hours, or a GPU)
	for stage in $(PRETRAIN); do $(PYTHON) -m motionexp.scripts.pretrain.$$stage; done

model-report: .venv/installed ## measure the bundled models against ground truth, into outputs/model-report/
	$(PYTHON) -m motionexp.scripts.pretrain.report

lock: | $(filter-out uv,$(UV)) ## pin again what requirements.in names
	$(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--output-file requirements.lock requirements.in

.venv/installed: requirements.lock pyproject.toml | $(filter-out uv,$(UV))
	@echo "Installing into .venv (several GB at the first time) ..."
	@start=$$(date +%s); \
	test -x $(PYTHON) || $(UV) venv --quiet --python '>=3.11,<3.14' .venv; \
	$(UV) pip install --quiet --compile-bytecode --python $(PYTHON) --require-hashes --requirement requirements.lock; \
	$(UV) pip install --quiet --python $(PYTHON) --no-deps --no-build-isolation --editable .; \
	echo "Installed in $$(( $$(date +%s) - start )) s."
	@touch $@

.bootstrap/bin/uv:
	python3 -m venv .bootstrap
	.bootstrap/bin/python -m pip install --quiet uv
