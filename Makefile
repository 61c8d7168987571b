# Thin aliases of the README's commands; everything works without make.
.PHONY: serve test lint bench lock docs

serve:
	python3 -m server

test:
	python3 -m tests

lint:
	python3 -m tests lint

bench:
	python3 -m server bench

# exact versions with hashes, for every platform and Python of requires-python, without any index address
LOCK = .venv/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
	--python-version 3.11 pyproject.toml

lock:
	$(LOCK) --output-file requirements.lock
	$(LOCK) --extra dev --output-file requirements-dev.lock

docs:
	.venv/bin/python -m server.config > docs/configuration.md
	.venv/bin/python -m server.metrics > docs/metrics.md
