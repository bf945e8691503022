# Every target is a thin door to `python -m pipeline <stage>`, which does the same without make.
# Settings given on make's command line (DATA=..., MODEL=...) are handed on as they are; variables of
# the shell's environment are not settings, and a note names those that are ignored.

PYTHON = python3
VENV = .venv
# Which PyTorch: default (what pip takes) or cpu (from PyTorch's own index; untried).
TORCH = default
TORCH_INDEX = https://download.pytorch.org/whl/cpu
PY = $(VENV)/bin/python
READY = $(VENV)/.ready
# Setuptools warns of what an editable install always is: a folder in the place of a package.
PIP = PYTHONWARNINGS="ignore:Editable installation" $(PY) -m pip install --quiet --disable-pip-version-check
EXTRAS = dev,demo

# The names of the settings in pipeline/settings/; a test holds the two lists together.
SETTINGS := DATA SEED OFFLINE STRICT LEAKS GROUP LAYOUT LABEL LABEL_COLUMN PATH_COLUMN SPLIT_COLUMN DATA_ROOT CACHE RESULTS \
	MODEL WEIGHTS LAYERS POOL SIZE RESIZE RANGE BANDS VIEWS PRECISION DTYPE \
	DEVICE ENGINE EXTRACT_BATCH WORKERS MAX_PIXELS CLUSTER \
	METHODS FOLDS CLASS_WEIGHT METRIC COST THRESHOLD SET TRAIN_VIEWS TEST SPLITS SEEDS JOBS \
	RECIPE UNFREEZE INIT PROBE FRESH BN EPOCHS BATCH_SIZE OPTIMIZER LR HEAD_LR LAYER_DECAY \
	MOMENTUM WEIGHT_DECAY SCHEDULE WARMUP STEP_EPOCHS STEP_FACTOR LABEL_SMOOTHING MIXUP EMA CLIP \
	BALANCE AUGMENT TRUNK_VIEWS TRUNK DISK NORMALISE VAL_FRACTION CHOOSE PATIENCE REFIT REPEAT DEEPEN TUNE \
	PHASES \
	MODELS ROPE BUDGET SIZES DRAWS TRAINED_DRAWS SHARE SHOWN GALLERY PICTURES EVIDENCE \
	WHERE SORT LIMIT AGAINST EXPORT \
	IMAGES RUN OUT FORMAT TOP ABSTAIN UNLIKE NEAREST \
	HOST PORT TOKEN LABELS COUNT
quote = '$(subst ','\'',$(1))'
typed = $(filter command,$(origin $(1)))
# What stands on make's command line is handed on too, so that a misspelt name is answered.
own = PYTHON VENV TORCH TORCH_INDEX PY READY PIP EXTRAS
commanded = $(foreach name,$(filter-out $(own),$(.VARIABLES)),$(if $(call typed,$(name)),$(name)))
given = $(foreach name,$(sort $(commanded)),$(call quote,$(name)=$($(name))))
# Variables of the environment that are named like settings: ignored, and not silently.
ignored = $(strip $(foreach name,$(sort $(SETTINGS)),$(if $(filter environment,$(origin $(name))),$(name))))
define told
echo 'note: variables of the environment are not settings; ignored: $(ignored).' \
	'To use one, type it after make: make $@ $(firstword $(ignored))=...' >&2;
endef
stage = $(if $(ignored),$(told)) $(PY) -m pipeline $@ $(given)
results = $(call quote,$(or $(if $(call typed,RESULTS),$(RESULTS)),results))
define cpu_torch
$(PIP) -c constraints.txt --index-url $(TORCH_INDEX) torch torchvision
endef

.DEFAULT_GOAL := help
.PHONY: help setup demo data audit features svm softmax heads finetune compare curve advise labels layers map report runs predict explain export serve label next verify test check torture bench clean clean-cache
.PHONY: docs test-fast test-long clean-results bench-peers bench-gpu

help: ## show this
	@echo "make <target> [NAME=value ...]"
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'
	@echo
	@echo "settings: $(SETTINGS)"
	@echo "what each means: make setup && $(PY) -m pipeline svm --help"

setup: $(READY) ## make the environment (.venv) and install everything into it

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11. Next: make setup PYTHON=python3.12" >&2; exit 2; }
	@case '$(TORCH)' in default | cpu) ;; *) \
		echo "error: TORCH=$(TORCH) is unknown. Expected: TORCH=default or TORCH=cpu." >&2; exit 2;; esac
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(if $(filter cpu,$(TORCH)),$(cpu_torch))
	$(PIP) -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

demo: $(READY) ## codes, SVM, softmax and fine-tuning on 2,624 solar cells; downloads nothing
	@$(stage)

data: $(READY) ## fetch a data set, or look at one of your own, and count it
	@$(stage)

audit: $(READY) ## find what is wrong with the images
	@$(stage)

features: $(READY) ## stage one: cache the codes of every image
	@$(stage)

svm: $(READY) ## stage two: a linear SVM on the codes
	@$(stage)

softmax: $(READY) ## stage two: softmax regression on the codes
	@$(stage)

heads: $(READY) ## stage two: every classical head on the codes
	@$(stage)

finetune: $(READY) ## stage three: train late layers, or all (UNFREEZE=), from the fitted probe
	@$(stage)

compare: $(READY) ## every method on the same splits, and whether the differences are real
	@$(stage)

curve: $(READY) ## accuracy against labelled images per class, and where one method overtakes
	@$(stage)

advise: $(READY) ## which strategy, layers and network suit the data, and why
	@$(stage)

report: $(READY) ## one HTML file with all that is known of DATA, and the same in Markdown
	@$(stage)

predict: $(READY) ## classify new images: IMAGES=<folder, file, glob, list, .zip> RUN=<run>
	@$(stage)

explain: $(READY) ## show which regions speak for the class: IMAGES=... RUN=<run> OUT=<folder>
	@$(stage)

export: $(READY) ## one model file that predicts anywhere: RUN=<run> OUT=<folder> FORMAT=onnx|openvino|web
	@$(stage)

serve: $(READY) ## predict over HTTP, with a page: RUN=<run>[,<run>...] PORT=8000
	@$(stage)

label: $(READY) ## correct labels on a page: DATA=<set> [IMAGES=<unlabelled>] [LABELS=<file>]
	@$(stage)

next: $(READY) ## which unlabelled images to label next: IMAGES=<unlabelled> DATA=<set> COUNT=50
	@$(stage)

labels: $(READY) ## list the images whose label is likely to be wrong
	@$(stage)

layers: $(READY) ## how good a linear probe of each layer is
	@$(stage)

map: $(READY) ## place the images in two dimensions by their codes
	@$(stage)

runs: $(READY) ## list what has been run; RUN=<one> AGAINST=<two>: side by side; EXPORT=mlflow OUT=...
	@$(stage)

verify: $(READY) ## check the cache against the images and its own digests
	@$(stage)

$(VENV)/.docs: $(READY)
	$(PIP) -c constraints.txt -e '.[docs]'
	@touch $@

docs: $(VENV)/.docs ## build the documentation: docs/_build/html/index.html
	$(PY) -m sphinx -q -W --keep-going -b html docs docs/_build/html

# Without kept bytecode every process of the tests compiles the tests and the package again.
test test-fast test-long: export PYTHONDONTWRITEBYTECODE =

test-fast: $(READY) ## run the tests of less than 0.2 s each
	$(PY) -m pytest -n auto --maxprocesses 4 --dist worksteal --quick

test: $(READY) ## run the tests
	$(PY) -m pytest -n auto --maxprocesses 4 --dist worksteal --durations=25

test-long: $(READY) ## run the tests of 2.5 s and more, which make test leaves out
	$(PY) -m pytest -n auto --maxprocesses 4 --dist worksteal --durations=25 \
		-m "long and not slow and not network and not gpu"

check: $(READY) ## lint, format and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

torture: $(READY) ## kill, fill disks, damage files: nothing may be lost or wrong (LONG=1: hours; SEED=0)
	$(PYTHON) -m torture $(PY) --seed $(or $(SEED),0) --out $(results)/torture.json $(if $(LONG),--long) $(TORTURE)

bench: $(READY) ## measure speed and accuracy; writes results/bench.json
	$(PY) -m benchmarks $(given)

# The peers' packages lie in an environment of their own, which also sees those of $(VENV).
$(VENV)-peers/.ready: $(READY)
	$(PYTHON) -m venv $(VENV)-peers
	$(PY) -c "import site; print('import site; site.addsitedir(%r)' % site.getsitepackages()[0])" \
		> "$$($(VENV)-peers/bin/python -c 'import site; print(site.getsitepackages()[0])')/ours.pth"
	$(VENV)-peers/bin/python -m pip install --quiet --disable-pip-version-check embetter fastai
	@touch $@

bench-peers: $(VENV)-peers/.ready ## measure what others use, on the same images; writes results/peers.json
	$(VENV)-peers/bin/python -m benchmarks.peers $(given)

bench-gpu: $(READY) ## measure stage one on a GPU and run the gpu tests; writes results/gpu.json
	$(PY) -m benchmarks.gpu $(given)

clean: ## remove what tools left behind; never results or the cache
	rm -rf build dist docs/_build docs/reference/generated *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

clean-results: ## remove every result: records, predictions, models, reports
	rm -rf $(results)

clean-cache: ## remove all of the cache (codes, graphs, weights), unless a run is using it
	@test -x $(PY) || { echo "error: $(PY) is missing; it checks whether a run uses the cache." \
		"Next: make setup, or remove the folder by hand" >&2; exit 2; }
	@$(stage)
