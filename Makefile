# make demo      the whole pipeline on the embedded dataset, in minutes on a CPU
# make test      the tests, in less than ten minutes
# make test-slow   those that take minutes each: processes that are killed, the wheel, the demo
# make test-originals   segmentation on the original distributions of OpenMMLab
# make lint      code style
# make install   .venv with the versions of requirements.txt, which those above make by themselves
# make clean     remove .venv and everything else that is built; data/ and work_dirs/ stay
#
# The interpreter is the first of the list below that is Python >= 3.11 and can create environments. To choose another:
#     make clean && make install PYTHON=/path/to/python3.12

PYTHON =
CANDIDATES = python3.13 python3.12 python3.11 python3

VENV_PYTHON = .venv/bin/python
# Written last, so an interrupted installation has none and is redone. It holds the folder's path: a copied or moved
# .venv would import the package from the place it was made for.
STAMP = .venv/installed-for

.PHONY: demo test test-slow test-originals lint install clean FORCE

demo: install
	$(VENV_PYTHON) -m tokenlabel demo

# Two processes, each with the tests of whole files.
PYTEST = OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest --numprocesses 2 --dist loadfile

test: install
	$(PYTEST) -m 'not slow'

test-slow: install
	$(PYTEST) -m slow

# In front of the maintained distributions, which stay where they are.
ORIGINALS = .venv/originals

test-originals: $(ORIGINALS)
	PYTHONPATH=$(CURDIR)/$(ORIGINALS) $(PYTEST) -m distributions

$(ORIGINALS): requirements-originals.txt | install
	rm -rf $(ORIGINALS)
	$(VENV_PYTHON) -m pip install --disable-pip-version-check --no-deps --requirement requirements-originals.txt \
		--target $(ORIGINALS)
	rm -r $(ORIGINALS)/tests  # the wheel of mmsegmentation holds its tests, in the way of ours
	touch $(ORIGINALS)

lint: install
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .

install: $(STAMP)

ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
$(STAMP): FORCE
endif

$(STAMP): requirements.txt setup.py
	@if [ "$$(cat $(STAMP) 2>/dev/null)" = "$$(pwd -P)" ]; then rm $(STAMP); exit; fi; \
	rm -rf .venv; \
	if [ -n "$(PYTHON)" ]; then set -- "$(PYTHON)"; else set -- $(CANDIDATES); fi; \
	for python in "$$@"; do \
		if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
			echo "Creating .venv with $$("$$python" --version)"; \
			exec "$$python" -m venv .venv; \
		fi; \
	done; \
	echo "No usable Python among: $$*. It must be version 3.11 or newer and have the venv module (Debian and Ubuntu:" \
		"package python3-venv). Install one, or name one: make install PYTHON=/path/to/python3.12" >&2; \
	exit 1
	$(VENV_PYTHON) -m pip install --disable-pip-version-check --requirement requirements.txt --editable .
	grep '^opencv-python-headless==' requirements.txt | xargs $(VENV_PYTHON) -m pip install --disable-pip-version-check \
		--quiet --no-deps --force-reinstall
	@pwd -P > $(STAMP)

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
