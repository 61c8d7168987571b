"""A watcher: the economy as a live table in the terminal, and every find and disaster as it happens.

    python clients/python/examples/watcher.py --url http://127.0.0.1:8000 --seconds 30

On a terminal the table is drawn over itself; into a pipe or a file it goes as one line a second.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TextIO

from arena_client import ArenaStream, EventReceived, Lagged, Mirror, StateChanged
from arena_client.stream import OutOfStep

HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
CLEAR = "\x1b[2J"
RED, GREEN, PLAIN = "\x1b[31m", "\x1b[32m", "\x1b[0m"
EVENTS_SHOWN = 5


@dataclass
class Watcher:
    """What one run has seen. first_tick, last_tick: None before the first frame."""

    out: TextIO
    markets: list[str]
    market: Mirror
    psychology: Mirror
    inflation: Mirror
    frames: int = 0
    first_tick: int | None = None
    last_tick: int | None = None
    lagged: int = 0
    out_of_step: int = 0
    events: deque[str] = field(default_factory=lambda: deque(maxlen=EVENTS_SHOWN))
    event_count: int = 0

    def note(self, event: EventReceived) -> None:
        """Keep an event for the table."""
        self.event_count += 1
        facts = ", ".join(f"{key} {value}" for key, value in event.values.items() if key != "name")
        self.events.append(f"tick {event.tick}: {event.values.get('name')} ({facts})")
        if not self.out.isatty():
            self.out.write(self.events[-1] + "\n")

    def draw(self) -> None:
        """Show the present state: the whole table on a terminal, else one line."""
        if self.out.isatty():
            self.out.write(HOME + "".join(line + CLEAR_LINE + "\n" for line in self.table()) + CLEAR_BELOW)
        else:
            self.out.write(self.line() + "\n")
        self.out.flush()

    def line(self) -> str:
        """Return the whole economy in one line."""
        macro, mood = self.inflation, self.psychology
        return (
            f"tick {macro.tick}  CPI {macro.value('cpi'):.4f}  inflation {macro.value('inflation'):+.2%}  "
            f"unemployment {macro.value('unemployment'):.2%}  rate {macro.value('policy_rate'):.2%}  "
            f"equity {macro.value('equity_index'):.2f}  sentiment {mood.value('sentiment'):.3f}  "
            f"fear {mood.value('fear'):.3f}"
        )

    def table(self) -> Iterator[str]:
        """Yield the lines of the table."""
        yield self.line()
        yield ""
        yield f"{'market':<22}{'price':>12}{'change':>9}{'volume':>10}{'spread':>9}{'volatility':>12}  mood"
        columns = [self.market.series(name) for name in ("price", "return_bp", "volume", "spread_bp", "volatility")]
        columns.append(self.market.series("sentiment"))
        for name, price, change, volume, spread, volatility, mood in zip(self.markets, *columns, strict=True):
            colour = GREEN if change > 0 else RED if change < 0 else PLAIN
            shown = f"{spread:.0f} bp" if spread >= 0 else "-"
            yield (
                f"{name:<22}{price:>12.4f}{colour}{change:>6.0f} bp{PLAIN}{volume:>10.0f}{shown:>9}"
                f"{volatility:>12.1%}  {mood:.3f}"
            )
        yield ""
        yield from self.events


async def run(url: str, seconds: float, out: TextIO = sys.stdout) -> Watcher:
    """Watch for so many seconds and return what was seen."""
    async with ArenaStream(url) as stream:
        market = await stream.subscribe("market_tick")
        psychology = await stream.subscribe("psychology_update")
        inflation = await stream.subscribe("inflation_update")
        await stream.follow("discovery_event")
        await stream.follow("catastrophic_event")
        watcher = Watcher(out, stream.markets, market, psychology, inflation)
        if out.isatty():
            out.write(CLEAR)
        next_tick = 0
        async for update in stream.lasting(seconds):
            match update:
                case StateChanged(channel="inflation_update", tick=tick):
                    watcher.frames += 1 + update.skipped
                    if watcher.first_tick is None:
                        # the first report may stand for some frames before it
                        watcher.first_tick = tick - update.skipped
                    watcher.last_tick = tick
                    if out.isatty() or tick >= next_tick:
                        next_tick = tick + 10
                        watcher.draw()
                case EventReceived():
                    watcher.note(update)
                case Lagged(skipped=skipped):
                    watcher.lagged += skipped
                case OutOfStep():
                    watcher.out_of_step += 1
    return watcher


def main() -> None:
    """Run from the command line and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    seen = asyncio.run(run(options.url, options.seconds))
    print(f"{seen.frames} frames, ticks {seen.first_tick} to {seen.last_tick}, {seen.event_count} events")
    print(f"{seen.lagged} frames left out, out of step {seen.out_of_step} times")


if __name__ == "__main__":
    main()
