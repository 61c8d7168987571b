"""A private channel through faults: a bot acts at the engine, who owns it follows, every entry is held to the engine's.

What the engine tells a bot of itself (receipts with their outcomes, what it holds in the end) comes to it directly. The
channel `agent` comes through the proxy, and must say the same: no outcome less, none twice, and of every order all that
happened to it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from arena_client import ArenaClient, ArenaStream
from arena_client.errors import OutcomeUnknown, RateLimited, ServerError, Unreachable
from arena_client.stream import EntriesReceived, OutOfStep

from loadtest.faults.referee import BACKOFF, Referee

CHANNEL = "agent"
MARKETS = ("food", "oil")
"""Of what is kept: whoever holds it has as much as was bought and not sold."""
OFF = (0.97, 1.02)
"""Of the price seen last: some orders are filled at once, some later, in part, or never."""
LOTS_MAX = 20
LOOK_EVERY = 50
"""Actions between two looks at the prices."""
CANCEL_EVERY = 20
"""Actions between two that end all open orders."""
AGAIN_S = 0.1


class Told(NamedTuple):
    """What the engine has told of an action: its place in the journal and its outcome, as in its receipt."""

    action: Mapping[str, Any]
    seq: int
    outcome: Mapping[str, Any]


class Bot:
    """An agent that acts at the engine itself, one action after the other, over restarts.

    told: of every action by its name, in their order. refused: how many were answered that they never count.
    """

    def __init__(self, url: str, seed: int) -> None:
        self.told: dict[str, Told] = {}
        self._client = ArenaClient(url, backoff=BACKOFF)
        self._chance = random.Random(seed)
        self._prices: dict[str, float] = {}
        self._acting = asyncio.Lock()

    async def register(self) -> str:
        """Become an agent and return the key of its owner."""
        return (await self._client.register()).api_key

    async def run(self) -> None:
        """Act until cancelled. Raises what no repetition helps against."""
        while True:
            # what has been begun is brought to its end even then: an answer nobody took would look like a loss
            await asyncio.shield(asyncio.ensure_future(self._one()))

    async def finish(self) -> str:
        """End all open orders and return the name of the action that did."""
        async with self._acting:
            return await self._act({"type": "cancel_all"})

    async def holdings(self) -> dict[str, int]:
        """Return the lots it holds, as the engine says, by market."""
        held = (await self._client.agent())["holdings"]
        return {market: int(held[market]["quantity"]) if market in held else 0 for market in MARKETS}

    async def close(self) -> None:
        """Hang up."""
        await self._client.close()

    async def _one(self) -> None:
        async with self._acting:
            if len(self.told) % LOOK_EVERY == 0:
                await self._look()
            is_end = len(self.told) % CANCEL_EVERY == CANCEL_EVERY - 1
            await self._act({"type": "cancel_all"} if is_end else self._order())

    def _order(self) -> dict[str, Any]:
        market = self._chance.choice(MARKETS)
        return {
            "type": "limit",
            "market": market,
            "side": self._chance.choice(("buy", "sell")),
            "quantity": self._chance.randint(1, LOTS_MAX),
            "price": f"{self._prices[market] * self._chance.uniform(*OFF):.4f}",
        }

    async def _look(self) -> None:
        # one that is down just now has told the prices before, but for the first time
        with suppress(Unreachable, ServerError):
            self._prices = {one["name"]: float(one["price"]) for one in await self._client.markets()}

    async def _act(self, action: dict[str, Any]) -> str:
        """Have an action decided, asking again under its name until the engine has said how; return the name."""
        name = f"f-{len(self.told)}"
        while True:
            with suppress(OutcomeUnknown, Unreachable, ServerError, RateLimited):
                receipt = await self._client.act(action, wait=True, client_action_id=name)
                if receipt.outcome is not None:
                    self.told[name] = Told(action, receipt.seq, receipt.outcome.document)
                    return name
            await asyncio.sleep(AGAIN_S)


class Owner:
    """A user of the SDK that follows its private channel and keeps every entry, in the order they came.

    lost: what the server said that it keeps no longer, or could not go on after.
    """

    def __init__(self, name: str, port: int, referee: Referee, subprotocol: str, api_key: str) -> None:
        self.name = name
        self.stream = ArenaStream(
            f"http://127.0.0.1:{port}", api_key=api_key, subprotocol=subprotocol, backoff=BACKOFF, silence_s=5.0
        )
        self.entries: list[Mapping[str, Any]] = []
        self.lost: list[str] = []
        self._referee = referee
        self._ready = asyncio.Event()

    async def run(self) -> None:
        """Follow until cancelled. Raises what ended the stream."""
        async with self.stream as stream:
            await stream.follow(CHANNEL)
            self._ready.set()
            async for update in stream:
                if isinstance(update, EntriesReceived):
                    self.entries += update.entries
                elif isinstance(update, OutOfStep):
                    self._referee.hear(self.name, CHANNEL, update.reason)
                    if not update.reason.startswith("a gap"):
                        self.lost.append(f"{self.name}: {update.reason}")

    async def ready(self) -> None:
        """Return when it follows: what happens from now on has to come."""
        await self._ready.wait()

    def has_seen(self, action: str) -> bool:
        """Say whether the outcome of an action has come, and all that happened in its tick with it."""
        return any(entry.get("client_action_id") == action for entry in reversed(self.entries))


def broken_entries(
    entries: Iterable[Mapping[str, Any]], told: Mapping[str, Told], holdings: Mapping[str, int]
) -> list[str]:
    """Return how the entries of a private channel differ from what the engine told; nothing when they do not.

    told: what became of every action, in their order, the last of which ended all orders. holdings: lots held after it.
    """
    seen = [entry for entry in entries if not is_registration(entry)]
    outcomes = [entry for entry in seen if entry["entry"] == "outcome"]
    wrong = _wrong_outcomes(outcomes, told)
    return wrong + _wrong_orders(seen, told, holdings)


def is_registration(entry: Mapping[str, Any]) -> bool:
    """Say whether an entry is that of the registration, which may come before the channel is followed, or after."""
    return entry["entry"] == "outcome" and entry["client_action_id"] is None


def _wrong_outcomes(outcomes: list[Mapping[str, Any]], told: Mapping[str, Told]) -> list[str]:
    names = Counter(entry["client_action_id"] for entry in outcomes)
    wrong = [f"no outcome of {name}" for name in told if name not in names]
    wrong += [f"{count} outcomes of {name}" for name, count in names.items() if count > 1]
    wrong += [f"an outcome of {name}, which nobody sent" for name in names if name not in told]
    for entry in outcomes:
        known = told.get(entry["client_action_id"])
        if known is not None and (entry["seq"], entry["outcome"]) != (known.seq, known.outcome):
            wrong.append(f"{entry['client_action_id']} came to {entry['outcome']}, its receipt says {known.outcome}")
    places = [entry["seq"] for entry in outcomes]
    return wrong if wrong or places == sorted(places) else ["outcomes in another order than their actions"]


def _wrong_orders(entries: list[Mapping[str, Any]], told: Mapping[str, Told], holdings: Mapping[str, int]) -> list[str]:
    """Follow every order from its outcome to its end: each entry goes on where the one before it has left the order."""
    wrong: list[str] = []
    left: dict[str, int] = {}
    held = dict.fromkeys(holdings, 0)
    for entry in entries:
        if entry["entry"] == "order":
            order, market, side, filled = entry["order_id"], entry["market"], entry["side"], entry["filled"]
            before = left.pop(order, None)
            is_over = entry["status"] in ("cancelled", "expired")
            if before is None or (filled > before if is_over else before - filled != entry["open"]):
                wrong.append(f"order {order}: {filled} filled of {before}, {entry['open']} open, {entry['status']}")
            if entry["open"] and not is_over:
                left[order] = entry["open"]
        elif entry["entry"] == "outcome" and (known := told.get(entry["client_action_id"])) is not None:
            if known.action["type"] != "limit":
                continue
            outcome, market, side = entry["outcome"], known.action["market"], known.action["side"]
            filled = outcome.get("filled") or 0
            if outcome.get("open"):
                left[outcome["order_id"]] = outcome["open"]
        else:
            wrong.append(f"an entry nobody caused: {dict(entry)}")
            continue
        held[market] += filled if side == "buy" else -filled
    wrong += [f"order {order}: {lots} open, and never ended" for order, lots in left.items()]
    return wrong + [
        f"{market}: {held[market]} lots by the entries, {lots} in the account"
        for market, lots in holdings.items()
        if held[market] != lots
    ]
