"""The market in mesa-frames: agents are rows of a polars frame, a step is a few expressions over all of them.

    python -m loadtest.peers.mesa_frames_market --agents 100000

Three idioms, of which the fastest counts: expressions with a sort of each side; the same with 32-bit columns; the
columns taken out to numpy and put back. All replace the frame by `with_columns`, the way its documentation shows:
`AgentSetPolars.set` joins on every call.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from mesa_frames import AgentSetPolars, ModelDF

from loadtest.peers.serving import serve

RATE = 1.0 / 16.0


class Traders(AgentSetPolars):  # type: ignore[misc]
    """All agents: cash, lots and three moods, one column each."""

    agents: pl.DataFrame

    def __init__(self, model: ModelDF, agents: int, dtype: type[pl.DataType]) -> None:
        super().__init__(model)
        self.dtype = dtype
        self += pl.DataFrame(
            {"unique_id": pl.arange(0, agents, eager=True)}
            | {"cash": pl.repeat(1_000.0, agents, dtype=dtype, eager=True)}
            | {"lots": pl.repeat(10, agents, dtype=pl.Int32, eager=True)}
            | {"fear": pl.repeat(0.1, agents, dtype=dtype, eager=True)}
            | {"greed": pl.repeat(0.1, agents, dtype=dtype, eager=True)}
            | {"confidence": pl.repeat(0.7, agents, dtype=dtype, eager=True)}
        )

    def step(self) -> None:
        """Feel, order, clear, settle: two passes of expressions and two sorts."""
        market = self.model
        price = market.price
        value = (pl.col("noise") * 0.01 + (pl.col("greed") - pl.col("fear")) * 0.02 + 1.0) * price
        felt = self.agents.with_columns(
            pl.col("fear") + (market.fear - pl.col("fear")) * RATE,
            pl.col("greed") + (market.greed - pl.col("greed")) * RATE,
            pl.col("confidence") + (market.confidence - pl.col("confidence")) * RATE,
            noise=pl.Series(market.noise(len(self.agents))),
        ).with_columns(value=value.cast(self.dtype))
        limits = felt["value"]
        is_bid = (limits > price) & (felt["cash"] >= limits)
        is_ask = (limits <= price) & (felt["lots"] > 0)
        market.clear(limits.filter(is_bid).sort(descending=True).to_numpy(), limits.filter(is_ask).sort().to_numpy())
        traded = (is_bid & (limits >= market.lowest_bid)).cast(pl.Int32) - (
            is_ask & (limits <= market.highest_ask)
        ).cast(pl.Int32)
        self.agents = felt.with_columns(
            cash=(pl.col("cash") - traded * market.price).cast(self.dtype), lots=pl.col("lots") + traded
        ).drop("noise", "value")


class TradersInNumpy(Traders):
    """The same arithmetic on the columns as numpy arrays."""

    def step(self) -> None:
        """Feel, order, clear, settle in numpy; the frame is replaced at the end."""
        market, frame = self.model, self.agents
        cash, lots, fear, greed, confidence = (
            frame[name].to_numpy() for name in ("cash", "lots", "fear", "greed", "confidence")
        )
        fear = fear + (market.fear - fear) * RATE
        greed = greed + (market.greed - greed) * RATE
        confidence = confidence + (market.confidence - confidence) * RATE
        limits = market.price * (1.0 + 0.01 * market.noise(len(frame)) + 0.02 * (greed - fear))
        is_bid = (limits > market.price) & (cash >= limits)
        is_ask = (limits <= market.price) & (lots > 0)
        market.clear(np.sort(limits[is_bid])[::-1], np.sort(limits[is_ask]))
        traded = (is_bid & (limits >= market.lowest_bid)).astype(np.int32)
        traded -= is_ask & (limits <= market.highest_ask)
        self.agents = frame.with_columns(
            cash=cash - traded * market.price, lots=lots + traded, fear=fear, greed=greed, confidence=confidence
        )


class Market(ModelDF):  # type: ignore[misc]
    """The market itself: what all idioms share."""

    def __init__(self, agents: int, kind: type[Traders] = Traders, dtype: type[pl.DataType] = pl.Float64) -> None:
        super().__init__(seed=1)
        self.price = 100.0
        self.volume = 0
        self.lowest_bid, self.highest_ask = np.inf, -np.inf
        self.fear = self.greed = 0.1
        self.confidence = 0.7
        self.type = np.float32 if dtype == pl.Float32 else np.float64
        self.agents += kind(self, agents, dtype)

    def noise(self, count: int) -> np.ndarray:
        """Return a standard normal number for each agent."""
        drawn: np.ndarray = self.random.standard_normal(count, dtype=self.type)
        return drawn

    def clear(self, bids: np.ndarray, asks: np.ndarray) -> None:
        """Find where sorted bids end to cover sorted asks; ties at the margin all trade, as in a sort of rows."""
        count = min(len(bids), len(asks))
        self.volume = int(np.count_nonzero(bids[:count] >= asks[:count]))
        before = self.price
        self.lowest_bid, self.highest_ask = np.inf, -np.inf
        if self.volume:
            self.lowest_bid, self.highest_ask = float(bids[self.volume - 1]), float(asks[self.volume - 1])
            self.price = (self.lowest_bid + self.highest_ask) / 2.0
        move = self.price / before - 1.0
        self.fear, self.greed = 0.1 + max(-move, 0.0) * 20.0, 0.1 + max(move, 0.0) * 20.0
        self.confidence = 0.7 - abs(move)

    def step(self) -> None:
        """Let the agents act."""
        self.agents.step()


if __name__ == "__main__":
    serve(
        {
            "expressions, 64 bits": Market,
            "expressions, 32 bits": lambda agents: Market(agents, dtype=pl.Float32),
            "numpy columns": lambda agents: Market(agents, TradersInNumpy),
        }
    )
