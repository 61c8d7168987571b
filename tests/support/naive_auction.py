"""The auction of one market in plain Python, by trying every price: the twin of engine.auction and engine.order_book.

Nothing here is fast, and nothing is shared with the engine but the ladder. Source: ECONOMY A6.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.ladder import REFERENCE_HIGH, REFERENCE_LOW, prices


@dataclass
class Order:
    """An order in the sequence of settlement: carried-over outside ones, new outside ones, then residents'."""

    side: int
    level: int
    lots: int
    is_carried: bool = False
    fill: int = 0


@dataclass
class Result:
    """What one auction gives. margins: (level, ration, total) of buyers and sellers before carried-over orders."""

    level: int
    volume: int = 0
    demand: int = 0
    supply: int = 0
    margins: tuple[tuple[int, int, int], tuple[int, int, int]] = ((len(prices()), 0, 0), (-1, 0, 0))
    counted: list[int | None] = field(default_factory=list)


def counted_level(order: Order, reference: int, down: int, up: int) -> int | None:
    """Return the level an order counts at, None when it does not take part."""
    if order.side > 0:
        return min(order.level, reference + up) if order.level >= reference - down else None
    return max(order.level, reference - down) if order.level <= reference + up else None


def clear(orders: list[Order], reference: int, down: int, up: int) -> Result:
    """Find the price of one auction and fill the orders in place."""
    counted = [counted_level(order, reference, down, up) for order in orders]
    bids = [(level, o.lots) for o, level in zip(orders, counted, strict=True) if level is not None and o.side > 0]
    asks = [(level, o.lots) for o, level in zip(orders, counted, strict=True) if level is not None and o.side < 0]

    def demand(k: int) -> int:
        return sum(lots for level, lots in bids if level >= k)

    def supply(k: int) -> int:
        return sum(lots for level, lots in asks if level <= k)

    for order in orders:
        order.fill = 0
    # demand and supply only change at orders, so that no other level but the reference can win
    near = {level + step for level, _ in bids + asks for step in (-1, 0, 1)} | {
        reference,
        REFERENCE_LOW,
        REFERENCE_HIGH,
    }
    low, high = max(reference - down, REFERENCE_LOW), min(reference + up, REFERENCE_HIGH)
    best = min(
        (k for k in near if low <= k <= high),
        key=lambda k: (-min(demand(k), supply(k)), abs(demand(k) - supply(k)), abs(k - reference), k),
    )
    volume = min(demand(best), supply(best))
    if volume == 0:
        return Result(reference, demand=demand(reference), supply=supply(reference), counted=counted)
    buy_margin = max(level for level, _ in bids if demand(level) >= volume)
    sell_margin = min(level for level, _ in asks if supply(level) >= volume)
    margins = (
        (buy_margin, volume - demand(buy_margin + 1), sum(lots for level, lots in bids if level == buy_margin)),
        (sell_margin, volume - supply(sell_margin - 1), sum(lots for level, lots in asks if level == sell_margin)),
    )
    for side, (margin, ration, total) in ((1, margins[0]), (-1, margins[1])):
        _fill_side(orders, counted, side, margin, ration, total)
    return Result(best, volume, demand(reference), supply(reference), margins, counted)


def _fill_side(orders: list[Order], counted: list[int | None], side: int, margin: int, ration: int, total: int) -> None:
    running = given = 0
    for is_carried in (True, False):
        for order, level in zip(orders, counted, strict=True):
            if order.side != side or level is None or order.is_carried is not is_carried:
                continue
            if side * (level - margin) > 0:
                order.fill = order.lots
            elif level == margin and is_carried:
                order.fill = min(order.lots, ration)
                ration -= order.fill
                total -= order.lots
            elif level == margin:
                running += order.lots
                order.fill = ration * running // total - given
                given += order.fill
