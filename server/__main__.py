"""`python3 -m server`: makes the environment when there is none, then runs the command line."""

import sys

from server import bootstrap


def main() -> int:
    """Run the command line in an environment that has what it needs; return its exit status."""
    bootstrap.enter("server")
    from server.cli import main as run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
