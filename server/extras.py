"""What pyproject's extras bring, and how to get it into the Python that runs: said wherever one of them is missing."""

from __future__ import annotations

import sys
from importlib.util import find_spec

#: By the module that is imported: the requirement, as the extra names it.
REQUIREMENTS = {
    "matplotlib": "matplotlib>=3.10",
    "pyarrow": "pyarrow>=21",
    "pyrage": "pyrage>=1.3",
}


def how_to_install(module: str) -> str:
    """Return the command that brings a module of REQUIREMENTS into this environment.

    By its own name: the package itself is installed from a source tree, no index knows its extras.
    """
    pip = f"{sys.executable} -m pip install" if find_spec("pip") else f"uv pip install --python {sys.executable}"
    return f"{pip} '{REQUIREMENTS[module]}'"
