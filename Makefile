# Needs Debian 12 or later or Ubuntu 24.04 or later, with Python 3.11 or later; the rest is set up here.
#
#   make demo     a token, a login, a signature, and a card that is pulled out and put back, as you would type them
#   make picture  draws the README's picture of it
#   make test     every test (PYTEST='-k login' chooses)
#   make tokens   one user's journey on nine kinds of tokens, into docs/tried.md unless CI is set (TOKENS='tpm nss')
#   make clients  ssh, PuTTY, libraries, git, ansible and others log in with each kind of key, into docs/clients.md unless CI
#                 is set (CLIENTS='plink go')
#   make machines  a new Debian 12 and 13, each booted: the README from its first line on, the .deb, and docs/bastion.md
#                 (DISTRIBUTIONS='trixie noble')
#   make newest   the tests against OpenSSH's programs in a new Debian sid, with the newest OpenSSH; as root
#                 (PYTEST='-k login'; the root is kept for a week, but for CI)
#   make package  sdist, wheel and a .deb for Debian 12 and 13 into dist/, each checked (DISTRIBUTIONS=trixie); as root
#   make torture  200 disturbances of a smart card, for each module and three seeds; fails if a first request afterwards
#                 fails, or is 3 s later than a pkcs11-tool of the same moment
#                 (MODULE=opensc SEED='3 4' COUNT=50 LATENCY=100 DISCOVERY=on)
#   make fuzz     every parser and a whole connection, ten minutes of nearly valid bytes (SECONDS=60)
#   make insertion  the time from inserting a card to its first signature, beside pkcs11-tool's
#   make bench    measures beside OpenSSH's agent, into docs/benchmarks.md (QUICK=1: two minutes, nothing written;
#                 AGENTS='/path/to/ssh-agent' measures others as well)
#   make soak     an hour of everything at once; fails if memory grows or a request fails (MINUTES=5 SEED=3)
#   make lint     style; make format fixes it
#   make types    the type checker
#   make completions  regenerates the shells' completions after a change of the command line
#   make lock     updates all packages to their newest versions: requirements.lock

# The distribution's, as users have it; it is faster than one that was compiled by hand, too.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
PYTEST ?=
VENV = .venv
READY = $(VENV)/.ready
# How Python behaves here is settled here: no PYTHONPATH, PYTHONHOME or the like of whoever runs this.
unexport $(filter PYTHON%,$(.VARIABLES))

.PHONY: demo picture test tokens clients machines newest package torture fuzz insertion bench soak lint types format completions lock clean

demo: $(READY)
	@tests/prepare demo
	@$(VENV)/bin/python tests/demo.py $(VENV)/demo/root

picture: $(READY)
	@tests/prepare demo
	$(VENV)/bin/python tests/demo.py $(VENV)/demo/root >$(VENV)/demo.txt
	$(VENV)/bin/python docs/picture.py <$(VENV)/demo.txt >docs/demo.svg

test: $(READY)
	@tests/prepare test
	$(VENV)/bin/pytest -n auto --dist worksteal $(PYTEST)

tokens: $(READY)
	@tests/prepare test
	@tests/prepare tokens
	$(VENV)/bin/python tests/tokens/main.py $(if $(CI),,--document docs/tried.md) $(TOKENS)

clients: $(READY)
	@tests/prepare test
	@tests/prepare clients
	mkdir -p $(VENV)/clients
	cp tests/clients/sources/package.json tests/clients/sources/package-lock.json $(VENV)/clients
	npm ci --silent --omit=optional --ignore-scripts --prefix $(VENV)/clients
	$(VENV)/bin/python tests/clients/main.py $(if $(CI),,--document docs/clients.md) $(CLIENTS)

machines: $(READY)
	@tests/prepare test
	@tests/prepare machines
	$(VENV)/bin/python tests/machines/main.py $(DISTRIBUTIONS)

newest: $(READY)
	@tests/prepare newest
	$(VENV)/bin/python tests/newest/main.py $(if $(CI),,--kept $(VENV)/newest) $(PYTEST)

package: $(READY) $(VENV)/package/bin/twine
	@tests/prepare package
	$(VENV)/bin/python tests/packages/main.py --twine $(VENV)/package/bin/twine $(DISTRIBUTIONS)

# What checks the packages is in none of them.
$(VENV)/package/bin/twine: $(READY)
	$(PYTHON) -m venv $(VENV)/package
	$(VENV)/package/bin/python -m pip install --quiet 'twine>=6.1'
	@touch $@

torture: $(READY)
	@tests/prepare test
	$(VENV)/bin/python tests/smartcard/torture.py $(if $(MODULE),--module $(MODULE)) $(if $(SEED),--seed $(SEED)) \
	  $(if $(COUNT),--count $(COUNT)) $(if $(LATENCY),--latency $(LATENCY)) $(if $(DISCOVERY),--discovery $(DISCOVERY))

fuzz: $(READY)
	$(VENV)/bin/python tests/fuzz/campaign.py $(if $(SECONDS),--seconds $(SECONDS))

insertion: $(READY)
	@tests/prepare test
	$(VENV)/bin/python tests/smartcard/insertion.py

bench: $(READY) $(VENV)/plain/bin/pip
	@tests/prepare test
	$(VENV)/plain/bin/pip install --quiet --no-build-isolation --no-deps --force-reinstall .
	REPLUG_AGENT=$(VENV)/plain/bin/replug-agent $(VENV)/bin/python tests/bench/main.py --two-workers 'workers = 2' \
	  $(if $(AGENTS),--agent $(AGENTS)) \
	  $(if $(QUICK),--effort quick,--document docs/benchmarks.md --chart docs/benchmarks.svg)

# An installation as users have it, to be measured.
$(VENV)/plain/bin/pip: $(READY)
	$(PYTHON) -m venv $(VENV)/plain
	$(VENV)/plain/bin/pip install --quiet --require-hashes -r requirements.lock
	@touch $@

soak: $(READY)
	@tests/prepare test
	$(VENV)/bin/python tests/bench/soak.py $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

lint: $(READY)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check

types: $(READY)
	$(VENV)/bin/mypy

format: $(READY)
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

# The virtual environment holds exactly the locked packages, hashes checked, and this folder as package replug.
$(READY): requirements.lock pyproject.toml
	@PYTHON='$(PYTHON)' tests/prepare python
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --require-hashes -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --no-build-isolation --no-deps -e .
	@touch $@

completions: $(READY)
	$(VENV)/bin/python docs/completions/generate.py

# One lock file serves every Python from 3.11 on; made with the oldest, it includes what only that one needs.
lock:
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip install --quiet 'pip-tools>=7.5'
	$(PYTHON) -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb")); \
	  lists = [project["build-system"]["requires"], project["project"]["dependencies"]]; \
	  lists += project["dependency-groups"].values(); \
	  print(*sum(lists, []), sep="\n")' | \
	CUSTOM_COMPILE_COMMAND='make lock' $(VENV)/lock/bin/pip-compile --quiet --upgrade --generate-hashes \
	  --strip-extras --allow-unsafe --no-annotate --no-emit-index-url --no-emit-trusted-host \
	  --no-emit-find-links --no-emit-options --output-file=requirements.lock -

clean:
	rm -rf $(VENV) build debian dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
