# What people and CI run. Everything that is fetched or made lies in .sextant/ and the target folder of Cargo.

PYTHON ?= python3
CARGO ?= cargo
LISTEN ?= 127.0.0.1:8080
MODELS := .sextant/models
SEXTANT := $(or $(CARGO_TARGET_DIR),target)/release/sextant

.DEFAULT_GOAL := help
.PHONY: help fetch setup setup-cuda serve test test-deploy test-tools check fmt clippy doc deps openapi bench bench-drift preview test-clients schemathesis hostile sbom fuzz clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 16

fetch: ## fetch the runtime and the weights into .sextant (does nothing when they are there)
	@$(PYTHON) scripts/setup.py

# The rollout log is what an import writes last: without an entry the model is not there, whatever else is.
setup: fetch ## fetch, build in release mode, import the weights as the model `minilm`
	$(CARGO) build --release --locked
	@ls $(MODELS)/minilm/rollouts/*.json > /dev/null 2>&1 \
		|| { set -x; $(SEXTANT) import .sextant/weights --models $(MODELS) --name minilm \
			--licence Apache-2.0 --reason 'make setup' --activate; }

setup-cuda: ## fetch the runtime for NVIDIA GPUs with CUDA 13 and cuDNN 9 (1.4 GB; needs driver r580 or newer)
	@$(PYTHON) scripts/setup.py --only cuda

serve: setup ## set up, then serve `minilm` (LISTEN=127.0.0.1:8080)
	$(SEXTANT) serve --models $(MODELS) --listen $(LISTEN)

test-tools: ## fetch what only tests need into .sextant: an S3 server (does nothing when it is there)
	@PYTHON=$(PYTHON) scripts/test-tools.sh

test: setup test-tools ## run all tests, with the real runtime and weights
	$(CARGO) test --locked
	$(PYTHON) tests/setup/test_setup.py
	$(PYTHON) tests/setup/test_cuda.py
	@$(MAKE) --no-print-directory test-clients
	SEXTANT=$(SEXTANT) $(PYTHON) tests/docs/test_page.py
	SEXTANT=$(SEXTANT) $(PYTHON) -m unittest discover --start-directory tests/gpu
	@$(MAKE) --no-print-directory test-deploy
	$(PYTHON) tests/supply/test_sbom.py
	SEXTANT=$(SEXTANT) $(PYTHON) tests/supply/test_outbound.py
	@FUZZ_PROFILE=dev PYTHON=$(PYTHON) scripts/fuzz.sh 5

test-deploy: setup ## run the tests of the chart, the rules and the dashboards alone
	@PYTHON=$(PYTHON) tests/deploy/run.sh

test-clients: setup ## run real clients and, for a minute, schemathesis against the server
	@PYTHON=$(PYTHON) tests/clients/run.sh

schemathesis: setup ## try the contract for ten minutes (SCHEMATHESIS_SEED=1)
	@SCHEMATHESIS_SECONDS=600 PYTHON=$(PYTHON) tests/clients/run.sh -k Contract

hostile: setup ## attack the server in every known way, and measure what each does (half an hour; needs an idle machine)
	SEXTANT=$(SEXTANT) $(PYTHON) benches/hostile/run.py

check: fmt clippy doc deps openapi ## run all checks that need no run of the server

fmt: ## check the formatting
	$(CARGO) fmt --check

clippy: ## lint
	$(CARGO) clippy --all-targets --locked -- -D warnings

doc: ## build the documentation, private items too, without a warning
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items --locked

deps: ## check licences, sources, advisories, unused dependencies
	@scripts/check-deps.sh

openapi: ## lint openapi.yaml (fetches the linter into .sextant; needs node and npm)
	@scripts/check-openapi.sh

sbom: ## write what the server is made of to target/sbom.json (CycloneDX)
	@mkdir -p target
	$(PYTHON) scripts/sbom.py > target/sbom.json

fuzz: ## run each fuzz target for a minute (FUZZ_SECONDS=60; needs the nightly compiler)
	@PYTHON=$(PYTHON) scripts/fuzz.sh $(or $(FUZZ_SECONDS),60)

bench: fetch ## run the benchmarks: the server beside the raw session loop, and its parts (half an hour)
	$(CARGO) bench --locked

bench-drift: setup ## measure drift detection beside alibi-detect and Evidently (an hour; 6 GB of Python packages; needs CLINC150)
	$(PYTHON) benches/drift/run.py

# The pictures of the dashboards in docs/, from three real servers (five minutes; fetches matplotlib, needs Prometheus).
preview: setup
	@scripts/deploy-tools.sh
	.sextant/deploy-tools/bin/python grafana/preview.py record .sextant/preview.json
	$(PYTHON) -m venv .sextant/preview && .sextant/preview/bin/pip install --quiet matplotlib==3.11.2
	.sextant/preview/bin/python grafana/preview.py draw .sextant/preview.json

clean: ## remove what was built and fetched, models imported into .sextant included
	$(CARGO) clean
	@echo "removing .sextant: runtime, weights, tools and the models imported into it"
	@rm -rf .sextant
