"""Who may import whom: the arrows of STYLE.md section 2, read from the sources, each breach named with its file."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deadlines import seconds

ROOT = Path(__file__).resolve().parents[1]

#: What computes in the standard library and has no clock, no file, no socket, no hidden generator.
COMPUTES = frozenset(
    {"__future__", "abc", "binascii", "bisect", "collections", "contextlib", "dataclasses", "decimal", "enum"}
    | {"fractions", "functools", "hashlib", "itertools", "json", "math", "operator", "struct", "typing", "zlib"}
)
STANDARD = frozenset(sys.stdlib_module_names)

#: Package: (its folder, what it may import besides itself).
PACKAGES = {
    "arena_client": ("clients/python/arena_client", STANDARD | {"msgpack", "websockets", "httpx2"}),
    "engine": ("engine", COMPUTES | {"numpy", "numba"}),
    "server": (
        "server",
        STANDARD
        | {"engine", "arena_client", "numpy", "starlette", "uvicorn", "redis", "orjson"}
        | {"prometheus_client", "pydantic", "pydantic_core", "structlog"},
    ),
    "loadtest": ("loadtest", STANDARD | {"arena_client"}),
    # no customers: they run the server itself, under virtual time and to be killed, and read what it leaves
    "loadtest.simulation": (
        "loadtest/simulation",
        STANDARD | {"loadtest", "engine", "server", "starlette", "orjson", "greenlet", "arena_client"},
    ),
    "loadtest.kills": ("loadtest/kills", STANDARD | {"loadtest", "engine", "server"}),
    "loadtest.gateways": ("loadtest/gateways", STANDARD | {"loadtest", "engine", "server", "arena_client"}),
    "examples": ("clients/python/examples", STANDARD | {"arena_client"}),
}

#: What one file may import beside what its package may, because it is the one door for it.
DOORS = {
    "engine/kernels.py": {"llvmlite", "ctypes"},  # instructions numba has no name for; copies where it is off
    "server/bodies.py": {"msgpack"},  # request bodies in msgpack, decoded strictly
    "server/live/relay.py": {"msgpack"},  # bundles of finished frames, from an engine to its gateways
    "server/gateway/upstream.py": {"httptools"},  # answers of the engine
    "server/protocols.py": {"websockets"},  # our protocol class under uvicorn
    "server/report/plots.py": {"matplotlib"},  # the plots of a report, in the extra studies
    "server/live/columnar.py": {"pyarrow"},  # Parquet and Arrow, where the extra `studies` is installed
    "server/send_loop.py": {"numba", "llvmlite"},  # a loop of system calls, compiled; two atomic instructions
    "server/app.py": {"uvloop"},  # the event loop
    "server/live/backup.py": {"pyrage"},  # the extra `backup`
    # no customers: they measure the engine itself
    "loadtest/endurance.py": {"server"},
    "loadtest/verdict.py": {"server"},  # where a result comes from
    "loadtest/micro/unsynced.py": {"server"},  # the server itself, without syncs
    "loadtest/headless/long_journal.py": {"engine", "server"},  # a record written without its ticks
    "loadtest/cost_curves.py": {"server"},
    "loadtest/headless/endurance.py": {"engine", "server", "numpy"},
    "loadtest/headless/cost_curves.py": {"engine", "server", "numpy"},
    "loadtest/headless/memory.py": {"engine", "server"},
    "loadtest/micro/probed_server.py": {"server", "uvloop"},
    "loadtest/micro/hub_server.py": {"server", "uvicorn", "starlette", "uvloop"},
    "loadtest/micro/bench_layout.py": {"engine", "server", "numpy"},
    "loadtest/micro/bench_ingest.py": {"engine", "server", "numpy"},
    "loadtest/micro/bench_actions.py": {"server"},
    # what every server of that benchmark does with an action is what ours does
    "loadtest/micro/actions/desk.py": {"engine", "server", "orjson"},
    # each runs in the environment of the library it shows
    "loadtest/peers/starlette_send.py": {"starlette", "uvicorn", "uvloop"},
    "loadtest/peers/websockets_broadcast.py": {"websockets", "uvloop"},
    "loadtest/peers/picows_send.py": {"picows", "uvloop"},
    "loadtest/locust/locustfile.py": {"locust"},
    "loadtest/follower.py": {"websockets"},  # what a WebSocket is, without input and output: the SDK's own library
    "loadtest/micro/actions/serve_ours.py": {"server", "starlette", "uvicorn"},
    "loadtest/micro/actions/serve_fastapi.py": {"server", "fastapi", "uvicorn"},
    "loadtest/micro/actions/serve_blacksheep.py": {"blacksheep", "uvicorn"},
    "loadtest/micro/actions/serve_granian.py": {"server", "granian"},
    "loadtest/micro/actions/serve_robyn.py": {"robyn"},
    "loadtest/micro/actions/serve_socketify.py": {"socketify"},
    "loadtest/peers/mesa_market.py": {"mesa", "numpy"},
    "loadtest/peers/mesa_frames_market.py": {"mesa_frames", "numpy", "polars"},
    "server/fork/results.py": {"pyarrow"},  # series as Parquet, in the extra studies
    "server/fork/page.py": {"matplotlib"},  # names of its types; what draws is report/plots.py
}
#: Modules that only the files named may import: time and entropy enter by one file each.
ONLY_IN = {
    "time": {"server/clock.py", "server/bench_ticks.py", "server/bench_peers.py"},
    "secrets": {"server/keys.py"},
    "random": set[str](),
    "uuid": set[str](),
    "sqlite3": set[str](),
    "pickle": set[str](),
    "logging": {"server/logs.py", "server/app.py"},
}

#: Parts of a package in their order: a part may import itself and the parts before it, never one after it.
ORDER = {
    "engine": (
        "errors config rng arithmetic canonical ladder markets agent_index siphash",
        "layout messages events public",
        "receipt_table",
        "receipt_door",
        "state",
        "auction order_book resources market_queue columns",
        "phases",
        "calibration actions invariants",
        "preview",
        "tick",
        "commands",
        "economy",
        "journal",
        "state_bytes",
        "replay",
        "effects",
        "fork",
        "analysis",
        "studies",
    ),
    "server": (
        "errors clock keys config bootstrap kernel_cache provenance send_loop input_poll redis_keys descriptors memory",
        "command_line logs metrics protocols bodies middleware redis_door acceptor",
        "schemas live batches",
        "documents",
        "registry",
        "openapi asyncapi pages",
        "routes",
        "app",
        "gateway",
        "bench_row",
        "bench_ticks bench_peers bench_frames",
        "report",
        "bench fork scenarios",
        "cli",
        "__main__",
    ),
}


PACKAGE, NO_PLACE = -1, -2


def breaches(root: Path) -> list[str]:
    """Return one sentence for each import under root that the arrows do not allow, by file."""
    found = []
    for package, (folder, allowed) in PACKAGES.items():
        for path in sorted((root / folder).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            if any(other.startswith(f"{folder}/") and name.startswith(f"{other}/") for other, _ in PACKAGES.values()):
                continue
            for module in imports(path):
                top = module.split(".")[0]
                if top not in allowed | {package} | DOORS.get(name, set()) or (
                    top == "arena_client" and package == "server" and not module.startswith("arena_client.wire")
                ):
                    found.append(f"{name}: {package} may not import {module}")
                elif package == "server" and name not in ONLY_IN.get(top, {name}):
                    found.append(f"{name}: {top} enters by {', '.join(sorted(ONLY_IN[top])) or 'no file'} only")
                elif top == package and package in ORDER:
                    found.extend(f"{name}: {text}" for text in _upwards(package, _module(path, root), module))
    return found


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of every module a file imports, `from package import module` as package.module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide where a name comes from"
            # a name may be a module (from engine import tick) or not (from engine.tick import advance)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _module(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts)


def _upwards(package: str, importer: str, imported: str) -> Iterator[str]:
    here, there = _rank(package, importer), _rank(package, imported)
    if here == NO_PLACE:
        yield "has no place in the order of tests/test_layers.py"
    if there > here >= 0:
        yield f"{imported} is above it"
    phases = [name.split(".")[2] for name in (importer, imported) if name.startswith("engine.phases.")]
    if len(phases) == 2 and phases[0] != phases[1] and not any(part.startswith("_") for part in phases):
        yield f"phases do not import each other ({imported}); an array in State says it"


def _rank(package: str, module: str) -> int:
    """Return the place of a module's part in the order of its package; the package itself comes before all."""
    part = [*module.split("."), "__init__"][1]
    places = {name: rank for rank, names in enumerate(ORDER[package]) for name in names.split()}
    return places.get(part, PACKAGE if part == "__init__" else NO_PLACE)


def test_imports_follow_the_arrows() -> None:
    """No file imports what its place in the house does not allow."""
    assert breaches(ROOT) == []


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("engine/clocked.py", "import time", "engine may not import time"),
        ("engine/phases/prices.py", "from engine.phases import behaviour", "phases do not import each other"),
        ("engine/state.py", "def f():\n    from engine.tick import advance", "engine.tick.advance is above it"),
        ("server/live/hub.py", "from server.routes.stream import x", "server.routes.stream.x is above it"),
        ("server/live/hub.py", "import uvloop", "server may not import uvloop"),
        ("server/live/hub.py", "from arena_client.mirror import Mirror", "may not import arena_client.mirror.Mirror"),
        ("server/live/hub.py", "import random", "random enters by no file only"),
        ("server/routes/agents.py", "import secrets", "secrets enters by server/keys.py only"),
        ("loadtest/swarm.py", "from engine import tick", "loadtest may not import engine.tick"),
        ("clients/python/examples/bot.py", "import server.app", "examples may not import server.app"),
        ("clients/python/arena_client/wire.py", "import numpy", "arena_client may not import numpy"),
    ],
)
def test_a_planted_breach_is_found_with_its_file(name: str, text: str, said: str, tmp_path: Path) -> None:
    """The check can fail: a bad import is named with its file, inside a function as well."""
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(text + "\n")

    [breach] = breaches(tmp_path)

    assert breach.startswith(f"{name}: ")
    assert said in breach


def test_a_module_without_a_place_is_noticed(tmp_path: Path) -> None:
    """A new module of the engine or the server gets its place in the order on purpose."""
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "novel.py").write_text("from engine import errors\n")

    assert breaches(tmp_path) == ["engine/novel.py: has no place in the order of tests/test_layers.py"]


IMPORT_EVERYTHING = """
import sys
from numba.core import event

class Compiled(event.Listener):
    def on_start(self, event): sys.exit(f"compiles while importing: {event.data}")
    def on_end(self, event): pass

def audit(name, arguments):
    if name.startswith(("socket.connect", "socket.bind", "subprocess", "os.fork")):
        sys.exit(f"{name} {arguments} while importing")

import importlib
event.register("numba:compile", Compiled())
sys.addaudithook(audit)
for module in sys.argv[1:]:
    importlib.import_module(module)
"""


def test_importing_neither_compiles_nor_connects() -> None:
    """Importing every module of the product defines things and does nothing else."""
    modules = [
        _module(path, ROOT).removesuffix(".__init__")
        for package in ("engine", "server")
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.name != "__main__.py"
    ]

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_EVERYTHING, *modules],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "clients" / "python")},
        capture_output=True,
        text=True,
        timeout=seconds(60),
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
