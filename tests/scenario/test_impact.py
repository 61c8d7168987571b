"""A large order worked over a day moves a price by about the square root of its size, and the move fades."""

from __future__ import annotations

import numpy as np
import pytest

from engine.config import Config
from engine.economy import Economy
from engine.ladder import UCR
from engine.markets import CONSOL, RAW_FIRST, RAW_LAST, SHARE_FIRST
from engine.messages import ACTION, Kind, TimeInForce
from engine.state import TREASURY

MARKETS = [*range(RAW_FIRST, RAW_LAST + 1), *range(SHARE_FIRST, CONSOL + 1)]
SHARES = (0.01, 0.3)
"""Of the daily volume."""
DAY = 24
STARTS = 16


class Trial:
    """A world with one rich outside agent that can be run twice from the same tick."""

    def __init__(self) -> None:
        self.economy = Economy(Config(residents=20_000, max_agents=8, order_book_max=1_024), 1, checks=0)
        self.sequence = 0
        self.economy.advance(self._row(Kind.REGISTER))
        state = self.economy.state
        state.agent_cash[0] += 10**9 * UCR
        state.ledger[TREASURY] -= 10**9 * UCR
        for _ in range(1_000):
            self.economy.advance()

    def moves(self, share: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        """Return by how many bp an order of a share of the daily volume moved each market: after one day, after four.

        Counterfactual: the same world from the same tick, with the order and without.
        """
        start = self.economy.copy_arrays()
        runs = []
        for traded in (share, 0.0):
            self.economy.restore(*start)
            runs.append(self._levels(traded))
        return (runs[0] - runs[1]).astype(np.float64)

    def _levels(self, share: float) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
        state, levels, wanted = self.economy.state, [], np.zeros(len(MARKETS))
        hourly = share * state.daily_volume[MARKETS] / DAY
        for hour in range(4 * DAY):
            rows = []
            if share and hour < DAY:
                wanted += hourly
                for k, m in enumerate(MARKETS):
                    if lots := int(wanted[k]):
                        wanted[k] -= lots
                        rows.append(self._row(Kind.LIMIT, market=m, quantity=lots, level=int(state.level[m]) + 4_000))
            self.economy.advance(np.concatenate(rows) if rows else np.zeros(0, ACTION))
            if hour in (DAY - 1, 4 * DAY - 1):
                levels.append(state.level[MARKETS].copy())
        return np.array(levels)

    def _row(self, kind: Kind, **fields: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        self.sequence += 1
        row = np.zeros(1, ACTION)
        row["seq"], row["agent_id"], row["kind"], row["market"], row["side"] = self.sequence, 1, kind, -1, 1
        row["time_in_force"], row["valid_until"] = TimeInForce.IOC, self.economy.tick + 600
        for name, value in fields.items():
            row[name] = value
        return row


@pytest.fixture(scope="module")
def moves() -> np.ndarray[tuple[int, int, int, int], np.dtype[np.float64]]:
    """Return moves in bp by start, size of the order, day and asset market."""
    trial, found = Trial(), []
    for _ in range(STARTS):
        found.append([trial.moves(share) for share in SHARES])
        for _ in range(30):
            trial.economy.advance()
    return np.array(found)


def test_impact_grows_with_the_square_root_of_an_order(
    moves: np.ndarray[tuple[int, int, int, int], np.dtype[np.float64]],
) -> None:
    """Exponent .4 to .7 from 1 to 30 % of a daily volume; without residents who read the tape it is 1.05."""
    small, large = moves[:, :, 0].mean(axis=(0, 2))

    assert small > 0
    assert 0.4 <= np.log(large / small) / np.log(SHARES[1] / SHARES[0]) <= 0.7


def test_impact_fades(moves: np.ndarray[tuple[int, int, int, int], np.dtype[np.float64]]) -> None:
    """Three days after its end the large order's move is a tenth smaller at least; alone it would be permanent.

    Medians: in four days a world may tip into a panic that its twin does not have, and one such start outweighs ten.
    """
    ended, later = np.median(moves[:, 1], axis=(0, 2))

    assert later < 0.9 * ended
