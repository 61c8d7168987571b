"""Write tests/vectors/golden_hashes.json: python -m tests.support.make_golden.

Run it only for a release that changes results on purpose, after raising engine.config.ENGINE_VERSION.
"""

import json
from pathlib import Path

from server import kernel_cache

WORLDS = {
    "small": {"config": {"residents": 2_000, "max_agents": 64, "order_book_max": 4_096}, "seed": 1},
    "default": {"config": {}, "seed": 2},
}
TICKS = (0, 1_000)


def main() -> None:
    """Advance each world and write the hashes of TICKS."""
    kernel_cache.choose()  # before the kernels are imported
    from engine.config import Config
    from engine.economy import Economy

    golden = {}
    for name, world in WORLDS.items():
        economy = Economy(Config(**world["config"]), world["seed"])
        hashes = {}
        while economy.tick < max(TICKS):
            economy.advance()
            if economy.tick in TICKS:
                hashes[str(economy.tick)] = economy.state_hash().hex()
        golden[name] = {**world, "hashes": hashes}
    path = Path(__file__).parents[1] / "vectors" / "golden_hashes.json"
    path.write_text(json.dumps(golden, indent=2) + "\n")


if __name__ == "__main__":
    main()
