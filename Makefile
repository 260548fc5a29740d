# Everything a developer does here. `make help` lists it.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# The oldest Python that will do, where there are several: what works there works on the newer ones.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null && echo $$name && break; done)
UV ?= uv
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# What `make image` builds.
IMAGE_VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' operator/pointsman/__init__.py)
IMAGE ?= pointsman:$(IMAGE_VERSION)

# What no generated or downloaded file is in.
SOURCES := operator tests e2e bench examples

# Tests that need no server of their own and are done in a minute or two.
QUICK := not controlplane and not server and not helm

# How many processes share all tests. Much of the time is waiting, so one more than there are cores pays off; each may
# start a control plane and a database of its own. A part of them (ARGS) is run by one, file after file.
PROCESSES ?= 3
SHARED = $(if $(ARGS),,-n $(PROCESSES) --dist loadfile --no-loadscope-reorder)

.PHONY: help demo test quick explore verify fmt check generate bench e2e e2e-programs e2e-down image sbom clean control-plane lock chart alerts

help: ## List what can be made
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(INSTALLED) control-plane ## Migrate a real corpus under live queries, refuse a worse version, roll back (BACKEND=pgvector|milvus|qdrant)
	@$(BIN)/python examples/stdlib/demo.py $(if $(BACKEND),--backend $(BACKEND))

test: $(INSTALLED) control-plane ## Run all tests (ARGS="-k name" passes arguments to pytest)
	@$(BIN)/pytest $(SHARED) $(ARGS)

quick: $(INSTALLED) ## Run the tests that start no server
	@$(BIN)/pytest -q -m "$(QUICK)" $(SHARED) $(ARGS)

explore: $(INSTALLED) ## Look for random edits that break an invariant, with new ones each time
	@HYPOTHESIS_PROFILE=exploring $(BIN)/pytest -q tests/plan/test_journeys.py tests/plan/test_properties.py tests/properties $(ARGS)

verify: $(INSTALLED) ## Check format, types and layers, regenerate, run the quick tests, and see that nothing changed
	@set -e; \
	before=$$($(FINGERPRINT)); \
	$(MAKE) --no-print-directory check generate; \
	$(BIN)/pytest -q -m "$(QUICK)" $(SHARED); \
	if [ "$$before" != "$$($(FINGERPRINT))" ]; then \
		echo "make verify changed the tree; what is generated was not up to date, or a test leaves files behind:"; \
		git status --short; exit 1; \
	fi; \
	echo "verified: nothing changed"

# The content of every tracked and untracked file that git does not ignore, as one line.
FINGERPRINT := { git status --porcelain; git ls-files -z --cached --others --exclude-standard \
	| xargs -0 git hash-object 2>/dev/null; } | git hash-object --stdin

check: $(INSTALLED) ## Check format, types and layers alone
	@echo "format"; $(BIN)/ruff format --check -q --output-format concise $(wildcard $(SOURCES)) && $(BIN)/ruff check -q --output-format concise $(wildcard $(SOURCES))
	@echo "types"; $(BIN)/mypy
	@echo "layers"; $(BIN)/lint-imports

generate: $(INSTALLED) ## Write the CRDs and the reference pages anew from the types
	@$(BIN)/python -m pointsman.api.crd
	@$(BIN)/python -m pointsman.api.reference
	@cp crds/*.yaml charts/pointsman/files/crds/
	@$(BIN)/python -c 'import pathlib, pointsman.settings as s; pathlib.Path("docs/settings.md").write_text(s.reference())'

fmt: $(INSTALLED) ## Format the code and mend what can be mended
	@$(BIN)/ruff check -q --fix $(wildcard $(SOURCES)); $(BIN)/ruff format $(wildcard $(SOURCES))

bench: $(INSTALLED) ## Measure, and write docs/performance.md
	@if [ -f bench/run.py ]; then $(BIN)/python bench/run.py $(ARGS); else echo "there is no bench/run.py yet"; fi

e2e: $(INSTALLED) ## Run the stories on a whole cluster with the built image and the chart (KEEP=1 leaves it up)
	@PYTHONPATH=operator:. KEEP="$(KEEP)" $(BIN)/python -m e2e.run $(ARGS)

e2e-programs: $(INSTALLED) ## Build helm and what else the stories take, where this machine can be a node
	@PYTHONPATH=operator:. $(BIN)/python -m e2e.cluster programs

e2e-down: $(INSTALLED) ## End the cluster that `make e2e KEEP=1` left up
	@PYTHONPATH=operator:. $(BIN)/python -m e2e.cluster down

image: ## Build the image with buildah or docker (IMAGE=name:tag BASE=registry/python BUILDER=the same with pip)
	@tool=$$(command -v buildah || command -v docker) || { echo "neither buildah nor docker is installed"; exit 1; }; \
	case $$tool in *buildah) build="bud --layers $(if $(filter 0,$(shell id -u)),--isolation=chroot)";; *) build=build;; esac; \
	$$tool $$build --tag "$(IMAGE)" $(if $(BASE),--build-arg "BASE=$(BASE)") $(if $(BUILDER),--build-arg "BUILDER=$(BUILDER)") \
		--build-arg VERSION="$(IMAGE_VERSION)" --build-arg REVISION="$$(git rev-parse HEAD 2> /dev/null || echo unknown)" \
		$(if $(PIP_INDEX_URL),--build-arg PIP_INDEX_URL) .

sbom: ## Write which packages the image IMAGE holds to build/sbom.cdx.json (CycloneDX); build it first
	@[ -x build/sbom/bin/cyclonedx-py ] || { $(PYTHON) -m venv build/sbom && build/sbom/bin/python -m pip install --quiet \
		--disable-pip-version-check --require-hashes -r requirements-sbom.lock; }
	@rm -rf build/sbom-image && $(PYTHON) -m venv --without-pip build/sbom-image
	@tool=$$(command -v buildah || command -v docker) || { echo "neither buildah nor docker is installed"; exit 1; }; \
	case $$tool in \
	*buildah) container=$$($$tool from --pull-never "$(IMAGE)") || exit 1; \
		$$tool run $(if $(filter 0,$(shell id -u)),--isolation=chroot) "$$container" -- python3 -c "$$SAYS_ITS_PACKAGES" \
			> build/sbom-image.tar; status=$$?; $$tool rm "$$container" > /dev/null; exit $$status;; \
	*) $$tool run --rm --pull=never --network=none --entrypoint=python3 "$(IMAGE)" -c "$$SAYS_ITS_PACKAGES" \
		> build/sbom-image.tar;; \
	esac
	@tar -x -f build/sbom-image.tar -C "$$(build/sbom-image/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	@build/sbom/bin/cyclonedx-py environment build/sbom-image/bin/python --pyproject pyproject.toml --mc-type application \
		--output-reproducible --output-format JSON --output-file build/sbom.cdx.json
	@echo "build/sbom.cdx.json: $$(grep -c '"purl"' build/sbom.cdx.json) packages of $(IMAGE)"

# What its Python packages say about themselves, as a tar: the image itself knows which are for its platform.
define SAYS_ITS_PACKAGES
import os, pathlib, sys, sysconfig, tarfile
os.chdir(sysconfig.get_path("purelib"))
with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as tar:
    for path in sorted(pathlib.Path().glob("*.dist-info")):
        tar.add(path)
endef
export SAYS_ITS_PACKAGES

chart: $(INSTALLED) control-plane ## Try the chart with helm on a real API server (helm is built, once, about 3 minutes)
	@$(BIN)/python -c 'from e2e.cluster import programs; programs.helm()'
	@$(BIN)/pytest -q -m helm $(ARGS)

alerts: $(INSTALLED) ## Try the alerts on made-up series with promtool (found, or built once, in 2 to 4 minutes and 2 GB)
	@$(BIN)/python -c 'from e2e.cluster import programs; programs.promtool()'
	@$(BIN)/pytest -q tests/integration/test_chart_alerts.py $(ARGS)

control-plane: $(INSTALLED) ## Have a Kubernetes API server ready: found, downloaded or built (once, about 5 minutes)
	@$(BIN)/python -m pointsman.controlplane > /dev/null

clean: ## Remove what was made here; the cache of control planes in ~/.cache/pointsman stays
	rm -rf $(VENV) build dist .coverage .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find $(wildcard $(SOURCES)) -name __pycache__ -type d -prune -exec rm -rf {} +

lock: ## Resolve the dependencies anew (needs uv)
	@# From an empty file, so that nothing of the old resolution is preferred.
	@$(UV) pip compile pyproject.toml --extra s3 --extra traces --extra embedded --group dev --universal --generate-hashes \
		--no-emit-index-url --no-header --python-version 3.11 --upgrade --quiet -o requirements.lock
	@echo "requirements.lock: $$(grep -c '==' requirements.lock) packages"
	@# The image's: what runs, in the versions that were tested.
	@$(UV) pip compile pyproject.toml --extra s3 --extra traces --constraint requirements.lock --universal --generate-hashes \
		--no-emit-index-url --no-header --no-annotate --python-version 3.11 --upgrade --quiet -o requirements-image.lock
	@echo "requirements-image.lock: $$(grep -c '==' requirements-image.lock) packages"
	@echo 'cyclonedx-bom>=7,<8' | $(UV) pip compile - --universal --generate-hashes --no-emit-index-url --no-header \
		--no-annotate --python-version 3.11 --upgrade --quiet -o requirements-sbom.lock

# The package itself is put on the path instead of being installed: that needs no build backend and no download.
$(INSTALLED): requirements.lock
	@if [ -z "$(PYTHON)" ]; then \
		echo "Python 3.11 or newer is needed and none was found; name it with PYTHON=/path/to/python3.11"; exit 1; fi
	@echo "Installing $$(grep -c '==' requirements.lock) locked packages into $(VENV), once"
	@[ -x $(BIN)/pip ] || $(PYTHON) -m venv $(VENV)
	@set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements.lock 2>&1 \
		| awk '{tail[NR % 20] = $$0} \
			/^Collecting / {n++; if (n % 25 == 0) print "  " n " packages, now " $$2} \
			/^Installing / {print "  putting them in place"} \
			/^ERROR|^error/ {failed = 1} {fflush()} \
			END {if (failed) for (i = NR + 1; i <= NR + 20; i++) print tail[i % 20]}'
	@packages=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	echo "$(CURDIR)/operator" > "$$packages/pointsman-source.pth"
	@for name in pointsman kubectl-pointsman; do \
		printf '#!%s\nimport sys\n\nfrom pointsman.cli.main import main\n\nsys.exit(main())\n' "$(CURDIR)/$(BIN)/python" \
			> $(BIN)/$$name; chmod +x $(BIN)/$$name; \
	done
	@touch $@
