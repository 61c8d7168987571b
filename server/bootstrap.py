"""From a bare Python to a running command: makes .venv when imports are missing, and goes on inside it.

Standard library only. An active environment is never changed: when it lacks something, the exact command is said.
Source: DESIGN D13, D14.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST, FIRST_UNKNOWN = (3, 11), (3, 15)
#: The module each dependency of pyproject.toml is imported by.
CORE = (
    "starlette",
    "uvicorn",
    "websockets",
    "msgpack",
    "redis",
    "numpy",
    "numba",
    "orjson",
    "prometheus_client",
    "pydantic",
    "structlog",
    "httptools",
    "httpx2",
)
DEV = (
    *CORE,
    "pytest",
    "pytest_asyncio",
    "pytest_timeout",
    "hypothesis",
    "locust",
    "matplotlib",
    "pyarrow",
    "pyrage",
    "coverage",
    "greenlet",
    "mypy",
    "ruff",
)
CORE_LOCK, DEV_LOCK = "requirements.lock", "requirements-dev.lock"
MARKER = "arena-installed.json"


def enter(module: str, needs: tuple[str, ...] = CORE, lock: str = CORE_LOCK, root: Path = ROOT) -> None:
    """Return when `python3 -m module` can run here; else go on in root/.venv, made and filled first if need be.

    needs: modules that must be importable. lock: the hashed requirements that bring them. Does not return when it
    continues in another Python; exits with a message when it cannot.
    """
    _check_version()
    client = root / "clients" / "python"
    if client.is_dir() and find_spec("arena_client") is None:
        sys.path.append(str(client))
    missing = [name for name in needs if find_spec(name) is None]
    if not missing:
        return
    venv = root / ".venv"
    if not (root / lock).is_file():
        _leave(f"{', '.join(missing)}: not installed, and {root} has no {lock} to install from. Reinstall the package.")
    if os.environ.get("ARENA_NO_BOOTSTRAP") == "1" or (_is_active() and Path(sys.prefix).resolve() != venv.resolve()):
        _leave(
            f"this environment ({sys.prefix}) lacks {', '.join(missing)}. Install what is missing with\n"
            f"    {sys.executable} -m pip install --require-hashes -r {root / lock}"
        )
    if not _install(venv, root / lock, client) and Path(sys.prefix).resolve() == venv.resolve():
        _leave(f"{venv} lacks {', '.join(missing)} although {lock} is installed in it. Delete it and run this again.")
    python = venv / "bin" / "python"
    os.environ["VIRTUAL_ENV"] = str(venv)
    os.execv(python, [str(python), "-m", module, *sys.argv[1:]])


def _check_version() -> None:
    here = sys.version_info[:2]
    if not OLDEST <= here < FIRST_UNKNOWN:
        _leave(
            f"this is Python {here[0]}.{here[1]}; needed is {OLDEST[0]}.{OLDEST[1]} or newer,"
            f" below {FIRST_UNKNOWN[0]}.{FIRST_UNKNOWN[1]}. Run the same command with another python3.x."
        )


def _is_active() -> bool:
    return sys.prefix != sys.base_prefix or "CONDA_PREFIX" in os.environ


def _install(venv: Path, lock: Path, client: Path) -> bool:
    """Make venv hold what lock says, once per content of lock, and return whether that took an installation.

    Two processes at a time wait for each other.
    """
    venv.mkdir(exist_ok=True)
    with (venv / "arena-install.lock").open("w") as owner:
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"waiting for another process that installs into {venv}")
            fcntl.flock(owner, fcntl.LOCK_EX)
        digest = hashlib.sha256(lock.read_bytes()).hexdigest()
        installed = _installed(venv)
        if installed.get(lock.name) == digest:
            return False
        _say(f"first start: installing {lock.name} into {venv} (about a minute, once)")
        uv = shutil.which("uv")
        if not (uv and _with_uv(uv, venv, lock)):
            _with_pip(venv, lock)
        for packages in venv.glob("lib/python*/site-packages"):
            # a bot started with this environment's Python finds the SDK of the clone
            (packages / "arena_client.pth").write_text(f"{client}\n", encoding="utf-8")
        installed[lock.name] = digest
        (venv / MARKER).write_text(json.dumps(installed), encoding="utf-8")
        _say("installed")
        return True


def _installed(venv: Path) -> dict[str, str]:
    try:
        found = json.loads((venv / MARKER).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) and (venv / "bin" / "python").exists() else {}


def _with_uv(uv: str, venv: Path, lock: Path) -> bool:
    python = str(venv / "bin" / "python")
    made = [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(venv)]
    filled = [uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", str(lock)]
    if _run(made) == 0 and _run(filled) == 0:
        return True
    _say("uv could not do it: trying pip")
    return False


def _with_pip(venv: Path, lock: Path) -> None:
    if find_spec("ensurepip") is None:
        _leave(
            "this Python cannot make environments (it comes without ensurepip). On Debian or Ubuntu:\n"
            f"    sudo apt install python3.{sys.version_info[1]}-venv\n"
            "or install uv (https://docs.astral.sh/uv/). Then run the same command again."
        )
    python = str(venv / "bin" / "python")
    filled = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if (status := _run([sys.executable, "-m", "venv", str(venv)])) != 0:
        _leave(f"could not make {venv} (status {status})")
    if (status := _run([*filled, "--require-hashes", "-r", str(lock)])) != 0:
        _leave(f"could not install {lock.name} (status {status}); run the same command again to retry")


def _run(command: list[str]) -> int:
    # what a build tool of this shell set must not reach into the new environment
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "VIRTUAL_ENV")}
    return subprocess.run(command, env=environ, check=False).returncode


def _say(text: str) -> None:
    sys.stderr.write(f"arena: {text}\n")
    sys.stderr.flush()


def _leave(text: str) -> None:
    _say(text)
    raise SystemExit(1)
