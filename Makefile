# Two commands matter: `make demo` and `make test`. Everything happens in .venv; nothing is downloaded but packages.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --disable-pip-version-check -qq --constraint constraints.txt
export TOKENIZERS_PARALLELISM := false
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: setup demo test test-all test-lowest check fuzz mutants bench calibrate bench-peers megatron specimens docs fill-docs browser clean test-vllm test-gguf test-scale java

setup: .venv/.setup
.venv/.setup: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

.venv/.test: .venv/.setup
	$(PIP) --editable '.[test]'
	$(PIP) --upgrade --no-deps --target .venv/torchvision torchvision  # beside the rest: see tests/builders/torchvision_beside.py
	touch $@

demo: setup  ## trace the three shipped models on shipped inputs into demo.duckdb
	rm -rf demo.duckdb demo.duckdb.parts
	$(BIN)/moescope trace mixtral --data text --store demo.duckdb --name "Mixtral on five domains"
	$(BIN)/moescope trace switch --data text --store demo.duckdb --name "Switch, span corruption"
	$(BIN)/moescope trace vmoe --data fashion-mnist --store demo.duckdb --name "V-MoE on Fashion-MNIST"
	@echo
	@echo "Look at all of it:   $(BIN)/moescope app demo.duckdb"
	@echo "Ask it in SQL:       $(BIN)/moescope sql demo.duckdb \"$(QUERY)\""
	@$(BIN)/moescope sql demo.duckdb "$(QUERY)"

QUERY := select run, stack, layer, expert, label as best_for, round(share / overall, 1) as times_its_share from label_load \
  where kind in ('domain', 'class') qualify row_number() over (partition by run order by share / overall desc) = 1 order by run

browser:  ## Chromium for the dashboard's tests, where this user may install packages
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update -qq && apt-get install -y -qq chromium chromium-driver >/dev/null; } || \
	  echo "no chromium and no right to install it: browser tests will be skipped"

test: .venv/.test browser lint  ## everything: format, lint, types, imports, all tests
	$(BIN)/pytest -n 2 --dist worksteal --durations=15

test-all:  ## the same with every case of tests that are sampled otherwise
	MOESCOPE_ALL=1 $(MAKE) test

test-scale: .venv/.test java  ## many processes and machines: workers, torchrun, Ray, Spark, a server of S3; killed, and made whole again (minutes)
	test -x build/scale/bin/uv || { $(BIN)/python -m venv build/scale && build/scale/bin/pip install --disable-pip-version-check -qq uv; }
	$(BIN)/python -c "import site; print(site.getsitepackages()[0])" > $$(build/scale/bin/python -c "import site; print(site.getsitepackages()[0])")/beside.pth
	$(UV) --python build/scale --constraint constraints.txt ray pyspark sqlglot
	test -x build/s3/bin/python || $(BIN)/python -m venv --without-pip build/s3  # a server of S3, which needs other versions than these
	$(UV) --python build/s3 'moto[s3]==5.2.5' flask flask-cors
	MOESCOPE_SCALE=1 PYTHONPATH=. build/scale/bin/python -m pytest -q --durations=15 -m "slow or not slow" $(SCALE)

UV := build/scale/bin/uv pip install --quiet --compile-bytecode
SCALE ?= tests/tracer/many tests/store/engines tests/store/remote

java:  ## what Spark runs on, where this user may install packages
	@command -v java >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update -qq && apt-get install -y -qq default-jre-headless >/dev/null; } || \
	  echo "no java and no right to install it: tests of Spark will be skipped"

check: .venv/.test lint  ## the same without slow tests
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow and not browser"

test-lowest:  ## the quicker tests on the lowest versions that pyproject.toml allows (PyTorch as it is pinned), in a folder of their own
	test -x build/lowest/bin/python || $(PYTHON) -m venv build/lowest
	build/lowest/bin/pip install --disable-pip-version-check -qq uv pytest hypothesis psutil zstandard polars parameterized gguf
	build/lowest/bin/uv pip install --quiet --python build/lowest/bin/python --resolution lowest-direct --editable '.[systems,quantized]' $$(grep '^torch==' constraints.txt)
	build/lowest/bin/pytest -m "not slow and not browser" $(LOWEST)

fuzz: .venv/.test  ## hostile inputs at night's size: 2,000 cases for every command, from another seed each day
	MOESCOPE_ALL=1 MOESCOPE_FUZZ=$${MOESCOPE_FUZZ:-2000} MOESCOPE_FUZZ_SEED=$${MOESCOPE_FUZZ_SEED:-$$(date +%F)} \
	  $(BIN)/pytest -n 2 --dist worksteal -m "slow or not slow" tests/cli/test_hostile_inputs.py tests/cli/test_words.py

mutants: .venv/.test  ## does a test notice? small wrong changes, one at a time in a copy (some hours; see benchmarks/mutants)
	$(BIN)/python -m benchmarks.mutants $(MUTANTS)

.PHONY: lint
lint: .venv/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.test  ## every performance figure, as ratios in one run
	$(BIN)/python -m benchmarks.speed

calibrate: .venv/.test  ## does anything claim what is not there? worlds without structure, 200 of each kind (hours; it goes on where it was)
	PYTHONPATH=tests/builders/stores $(BIN)/python -m benchmarks.calibration $(CALIBRATE)
	$(BIN)/python -m benchmarks.calibration.table
	$(BIN)/python -m docs.update_blocks calibration

bench-peers: .venv/.test  ## the same model and inputs through other tools, installed into a folder of their own
	$(BIN)/python -m benchmarks.peers --install build/peers

megatron: .venv/.test  ## the tests of Megatron-Core's router on the package itself, installed into a folder of its own
	$(PIP) --target build/megatron --upgrade --no-deps megatron-core==0.16.1
	PYTHONPATH=build/megatron $(BIN)/pytest -q tests/contracts/systems/test_megatron_router.py

test-vllm: .venv/.test  ## the recorder inside vLLM itself, its build for CPUs installed into a folder of its own (3 GB, some minutes)
	MOESCOPE_VLLM=$${MOESCOPE_VLLM:-1} $(BIN)/pytest -q tests/engines
test-gguf: .venv/.test  ## GGUF files run by llama.cpp, built from source into a folder of its own (some minutes)
	test -d build/gguf/llama_cpp || CMAKE_ARGS="$(LLAMA)" $(PIP) --target build/gguf --no-deps llama-cpp-python==0.3.36 diskcache==5.6.3
	MOESCOPE_GGUF=1 PYTHONPATH=build/gguf $(BIN)/pytest -q tests/models/test_gguf_llamacpp.py

LLAMA := -DGGML_NATIVE=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_CURL=OFF

specimens: .venv/.test  ## train the shipped models again
	$(BIN)/python -m specimens.training.mixtral
	$(BIN)/python -m specimens.training.switch
	$(BIN)/python -m specimens.training.switch --joined
	$(BIN)/python -m specimens.training.vmoe

docs: .venv/.test  ## build the documentation site, strictly, into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Look at it: $(BIN)/python -m http.server --directory build/site"

fill-docs: .venv/.test  ## fill the marked blocks of all pages, and run the commands of the tutorials and the README
	$(BIN)/python -m docs.update_blocks
	$(BIN)/python -m docs.executed

clean:
	rm -rf .venv demo.duckdb demo.duckdb.parts build dist
