"""What must hold of the tree as a whole: nothing unfinished, nothing of this machine, nothing that fetches itself."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HERE = "tests/test_tree.py"
#: The user's card, in its words: these stand at the top of the tree, and each is real.
CARD = ("pyproject.toml", "README.md", "server", "engine", "clients", "tests", "loadtest", "deploy", "grafana")
LARGEST_KIB = 1024


def tracked() -> list[str]:
    """Return the files of the tree: what git knows, or everything that is not ignored in a copy without git."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        ignored = {
            ".venv",
            ".venv-peers",
            ".venv-peers-fastapi",
            ".venv-peers-streams",
            "__pycache__",
            ".mypy_cache",
            ".ruff_cache",
            ".pytest_cache",
            "arena-data",
        }
        files = (path for path in ROOT.rglob("*") if path.is_file() and not ignored & set(path.parts))
        return [path.relative_to(ROOT).as_posix() for path in files]
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def hits(pattern: str, suffixes: tuple[str, ...], under: str = "") -> list[str]:
    """Return file:line of each line of the tree's text files that pattern finds, this file left out."""
    found = []
    for name in tracked():
        if name == HERE or not name.startswith(under) or not name.endswith(suffixes):
            continue
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1):
            if re.search(pattern, line):
                found.append(f"{name}:{number}: {line.strip()}")
    return found


CODE = (".py", ".js", ".html", ".sh", ".toml", ".yaml", ".yml")
TEXT = (*CODE, ".md", ".json", ".lock", ".service", "Makefile", "Containerfile", "run")


def test_nothing_is_unfinished_by_its_own_word() -> None:
    """No mark of unfinished work anywhere: what is here is done, what is not here is nowhere announced."""
    assert hits(r"\b(TODO|FIXME|XXX|NotImplementedError|for now|placeholder|not yet implemented)\b", TEXT) == []


def test_no_test_sleeps() -> None:
    """Tests wait for something that happens, never for time to pass."""
    assert hits(r"time\.sleep|asyncio\.sleep\((0\.[0-9]*[1-9]|[1-9])|anyio\.sleep\([^0]", (".py",), "tests/") == []


def test_no_test_is_skipped_or_excused() -> None:
    """Every test runs everywhere and asserts something."""
    pattern = r"pytest\.skip|skipif|xfail|importorskip|assert True\b|unittest\.mock|MagicMock"
    assert hits(pattern, (".py",), "tests/") == []


def test_nothing_is_swallowed() -> None:
    """No broad handler lets an error disappear without a word."""
    assert [place for name in tracked() if name.endswith(".py") for place in swallowing(name)] == []


def swallowing(name: str) -> list[str]:
    """Return file:line of each handler that catches everything and does nothing."""
    handlers = (node for node in ast.walk(ast.parse((ROOT / name).read_text())) if isinstance(node, ast.ExceptHandler))
    return [
        f"{name}:{handler.lineno}"
        for handler in handlers
        if (handler.type is None or ast.unparse(handler.type) in ("Exception", "BaseException"))
        and all(isinstance(step, (ast.Pass, ast.Continue)) for step in handler.body)
    ]


def test_no_path_of_a_machine() -> None:
    """The tree works wherever it is cloned."""
    assert hits(r"(^|[\s\"'=(])/(home|root|Users|work|tmp)/", TEXT) == []
    assert hits(re.escape(str(ROOT)), TEXT) == []


def test_no_index_address() -> None:
    """Lock files and configurations leave it to the user where packages come from."""
    pattern = r"--(extra-)?index-url|--find-links|(url|registry|resolved)[\"']? *[=:] *[\"']?https?://[^\s\"']*(simple|\.whl|\.tar\.gz|\.tgz)"
    assert hits(pattern, TEXT) == []


def test_locks_name_hashes_and_cover_what_is_required() -> None:
    """Every requirement of pyproject.toml is locked to one version per platform, every version with its hashes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core, dev = project["dependencies"], project["optional-dependencies"]["dev"]
    for lock, required in (("requirements.lock", core), ("requirements-dev.lock", core + dev)):
        entries = re.split(r"\n(?=\S)", (ROOT / lock).read_text())
        locked = {entry.split("==")[0] for entry in entries}
        assert [entry.split()[0] for entry in entries if "==" not in entry or "--hash=sha256:" not in entry] == []
        assert {re.split("[<>=; ]", name)[0] for name in required} <= locked, lock


def test_both_locks_agree() -> None:
    """What a developer tests is what a user gets."""
    core = set(re.findall(r"^(\S+==.*?) \\$", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    dev = set(re.findall(r"^(\S+==.*?) \\$", (ROOT / "requirements-dev.lock").read_text(), re.MULTILINE))
    assert core
    assert core <= dev


@pytest.mark.parametrize("name", CARD)
def test_every_entry_of_the_card_is_there(name: str) -> None:
    """The top level is the card's, and no entry is empty."""
    path = ROOT / name
    assert path.exists()
    assert not path.is_dir() or [file for file in tracked() if file.startswith(f"{name}/")]


def test_the_top_level_holds_nothing_else_but_tooling() -> None:
    """Beside the card's entries stand documents and tool files only."""
    tooling = {
        "CHANGELOG.md", "LICENSE", "Makefile", "docs", "requirements.lock", "requirements-dev.lock",
        ".ci", ".gitignore", ".pre-commit-config.yaml", ".dockerignore", ".containerignore",
    }  # fmt: skip
    assert {name.split("/")[0] for name in tracked()} - set(CARD) <= tooling


def test_make_is_a_thin_alias() -> None:
    """Each make target is a command of the README or prepares one; nothing works only through make."""
    readme = (ROOT / "README.md").read_text()
    recipes = re.findall(r"^\t(python3 .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipes
    assert [command for command in recipes if command not in readme] == []


def test_ci_runs_the_readmes_test_command() -> None:
    """CI tests what a reader is told to run."""
    command = "python3 -m tests"
    assert command in (ROOT / "README.md").read_text()
    assert re.search(rf"^\s*.*{re.escape(command)}", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


def test_local_links_of_documents_lead_somewhere() -> None:
    """Every relative link in a document names a file of the tree."""
    broken = []
    for name in tracked():
        if name.endswith(".md"):
            folder = (ROOT / name).parent
            for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", (ROOT / name).read_text(encoding="utf-8")):
                if not (folder / target).exists():
                    broken.append(f"{name}: {target}")
    assert broken == []


def test_nothing_large_is_tracked() -> None:
    """Results and vectors stay small enough to read a change of them."""
    large = [name for name in tracked() if (ROOT / name).stat().st_size > LARGEST_KIB * 1024]
    assert large == []


def test_results_say_what_was_measured() -> None:
    """Each committed result is a list of rows with value, bar, verdict, revision and machine, or one session."""
    keys = {"id", "value", "unit", "bar", "pass", "spread", "revision", "machine", "includes", "excludes"}
    for name in tracked():
        if name.startswith("loadtest/results/bench") and name.endswith(".json"):
            rows = json.loads((ROOT / name).read_text())
            assert rows
            assert [row["id"] for row in rows if not keys <= set(row)] == [], name
