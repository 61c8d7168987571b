"""The behaviour phase in plain Python, one resident at a time, written from the specification (ECONOMY A7, A8).

The twin of engine/phases/behaviour.py: slow, without numpy arithmetic, blocks only where the specification has them.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from engine import state as places
from engine.ladder import window
from engine.markets import HOUSEHOLD_DAY, INPUT_1, INPUT_2
from engine.state import State

WORD = 1 << 32
PLASTIC = 1.324717957244746
HOUSEHOLDS_TURN, PRODUCERS_TURN = round(WORD / PLASTIC), round(WORD / PLASTIC**2)
LOTS_MAX = 10**9


def mix32(h: int) -> int:
    """Return the 32-bit murmur3 finaliser."""
    h %= WORD
    h ^= h >> 16
    h = h * 0x85EBCA6B % WORD
    h ^= h >> 13
    h = h * 0xC2B2AE35 % WORD
    return h ^ (h >> 16)


def normal(h: int) -> int:
    """Return n(h): the sum of the four bytes less 510."""
    return sum(h.to_bytes(4, "little")) - 510


def group_of(byte: int) -> int:
    """Return the first group whose cumulative Zipf weight reaches (byte + .5) / 256."""
    total = sum(Fraction(1, k) for k in range(1, 65))
    reached = Fraction(0)
    for k in range(64):
        reached += Fraction(1, k + 1) / total
        if reached >= Fraction(2 * byte + 1, 512):
            return k
    raise AssertionError("the weights sum to one")


GROUP = [group_of(byte) for byte in range(256)]


def clip(x: int, low: int, high: int) -> int:
    """Return x kept in low .. high; high wins."""
    return min(max(x, low), high)


def own_hour(tick: int, phase: int, jump: int) -> int:
    """Return the own hour of a block in a tick: its clock jumps at the start of every day (a day is 2^32)."""
    turned = tick // 24 * jump % WORD
    return (tick + phase + turned * 24 // WORD) % 24


def spent_a_day(household: int) -> float:
    """Return the share of its cash that a household spends a day: 1/6400 to 1/160, even over the households."""
    even = household * 2246822519 % WORD // 65536
    return 1.0 / 6400.0 + even * ((1.0 / 160.0 - 1.0 / 6400.0) / 65536.0)


class NaiveBehaviour:
    """One step of the behaviour phase on lists. `run` leaves the results in the attributes named as State's arrays."""

    RESIDENTS = ("cash", "ord_level", "ord_qty", "sentiment", "fear", "greed", "confidence", "memory")
    HOUSEHOLDS = ("shares", "income_ema", "reserve_wage", "skill", "employed")
    PRODUCERS = (
        "debt", "out", "in1", "in2", "hours", "day_sales", "ask", "sales_ema", "sell_level", "sell_qty",
    )  # fmt: skip
    TRADERS = ("inventory",)
    CHANGED = tuple(n for n in RESIDENTS + HOUSEHOLDS + PRODUCERS + TRADERS if n != "skill")
    MARKETS = (
        "level", "price", "fundamental", "slow_level", "income_per_lot", "base_share_q15", "visit_share_q16",
        "subsistence", "panic_bias", "quote_shift", "unit_cost", "cost_level", "hours_q16", "input1_q16",
        "input2_q16", "quota",
        "trend_fast", "trend_slow", "chartists_q16", "vm_q8", "sigma_q4", "group_draw", "target_sentiment",
        "target_fear", "target_greed", "target_confidence", "margin_level", "margin_ration", "margin_total",
        "block_before", "segment_before", "ladder", "keys",
    )  # fmt: skip

    def __init__(self, state: State, max_price_change: float) -> None:
        for name in self.RESIDENTS + self.HOUSEHOLDS + self.PRODUCERS + self.TRADERS + self.MARKETS:
            setattr(self, name, getattr(state, name).tolist())
        self.tick = state.tick
        self.unemployment = float(state.macro[places.UNEMPLOYMENT])
        self.layout = state.layout
        self.down, self.up = window(max_price_change)
        names = (
            "WAGE_REFERENCE", "BENEFIT", "FUND_RATE", "TRANSFER_UCR", "RHO_Q16", "DEBT_DAYS_Q8", "LOAN_RATE_Q32",
            "WAGE_STEP_Q8", "EXPECTED_STEP_Q8", "SUBSISTENCE",
        )  # fmt: skip
        self.places = places
        self.macro = {name: int(state.counters[getattr(places, name)]) for name in names}
        self.flows = [0] * places.FLOWS
        self.goods_flow = [[0] * 32 for _ in range(4)]
        self.dividends = [0] * 32
        self.mood_sum = [[0] * 32 for _ in range(places.MOODS)]
        self.book: dict[tuple[int, int, int], int] = {}
        """(market, side, level) -> lots of the next auction."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    # --- common -------------------------------------------------------------------------------------------------

    def draw(self, i: int, sub: int = 0, stream: int = 0) -> int:
        """Return the draw of resident i on the residents' (0) or the minds' (1) stream of the tick."""
        k0, k1 = self.keys[stream]
        return mix32(mix32(i * 0x9E3779B9 + k0 + sub) ^ k1)

    def flow(self, name: str, amount: int) -> None:
        """Add to a flow of the tick."""
        self.flows[getattr(self.places, name)] += amount

    def fills(self, orders: list[tuple[int, int]], market: int, buys_before: int, sells_before: int) -> list[int]:
        """Return the signed fills of (level, lots) in their order, by A6.3 and A6.4."""
        running = [buys_before, sells_before]
        result = []
        for level, lots in orders:
            side = 0 if lots > 0 else 1
            margin = self.margin_level[side][market]
            ration, total = self.margin_ration[side][market], self.margin_total[side][market]
            sign = 1 if lots > 0 else -1
            if lots == 0 or (level - margin) * sign < 0:
                result.append(0)
            elif level != margin:
                result.append(lots)
            elif total == 0:
                result.append(0)
            else:
                before = ration * running[side] // total
                running[side] += abs(lots)
                result.append(sign * (ration * running[side] // total - before))
        return result

    def stand(self, market: int, level: int, lots: int) -> None:
        """Put an order into the next auction, if it is inside the window."""
        p = self.level[market]
        if lots > 0 and level >= p - self.down:
            self.book[market, 0, level] = self.book.get((market, 0, level), 0) + lots
        if lots < 0 and level <= p + self.up:
            self.book[market, 1, level] = self.book.get((market, 1, level), 0) - lots

    def feel(self, i: int, home: int) -> None:
        """Move the moods of resident i (A8)."""
        h = self.draw(i, stream=1)
        k = (4, 6, 8, 10)[i % 4]
        for name in ("fear", "greed", "confidence", "sentiment"):
            mood = getattr(self, name)
            mood[i] += (getattr(self, "target_" + name)[home] - mood[i] + h % (1 << k)) >> k
        self.memory[i] += (self.sentiment[i] - self.memory[i] + (h >> 3) % (1 << 12)) >> 12
        far = self.sentiment[i] - 16384
        moods = (
            self.sentiment[i],
            self.fear[i],
            self.greed[i],
            self.confidence[i],
            self.memory[i],
            abs(far),
            far * far,
        )
        for row, value in enumerate(moods):
            self.mood_sum[row][home] += value

    def run(self) -> None:
        """Step all residents."""
        layout = self.layout
        for b in range(layout.blocks):
            members = range(int(layout.block_start[b]), int(layout.block_end[b]))
            kind, home, phase = (int(t[b]) for t in (layout.block_type, layout.block_home, layout.block_phase))
            if kind == 0:
                self.households(b, members, home, phase)
            elif kind == 3:
                self.traders(b, members, home)
        for s in range(len(layout.segment_start)):
            self.segment(s)

    # --- households ---------------------------------------------------------------------------------------------

    def households(self, b: int, members: range, home: int, phase: int) -> None:
        """One block of households."""
        market = self.household_market(home, own_hour(self.tick, phase, HOUSEHOLDS_TURN))
        following = self.household_market(home, own_hour(self.tick + 1, phase, HOUSEHOLDS_TURN))
        orders = [(self.ord_level[i], self.ord_qty[i]) for i in members]
        fills = self.fills(orders, market, *self.block_before[b])
        for i, fill in zip(members, fills, strict=True):
            income = self.income_per_lot[home] * self.shares[i]
            self.flow("FLOW_SHARE_INCOME", income)
            self.cash[i] += income
            if market == 0:
                if self.ord_qty[i] != 0:
                    self.paid_work(i, -fill, income)
            else:
                self.cash[i] -= fill * self.price[market]
                if market >= 24:
                    self.shares[i] += fill
                else:
                    self.flow("FLOW_NOMINAL", fill * self.price[market])
                    self.flow("FLOW_REAL", fill)
                    self.goods_flow[self.places.GOODS_CONSUMED][market] += fill
            if following == 0:
                self.ord_qty[i] = -self.skill[i]
                self.ord_level[i] = max(self.reserve_wage[i], self.level[0] - self.down)
            elif following >= 24:
                self.order_shares(i, home)
            else:
                self.order_goods(i, following)
            self.stand(following, self.ord_level[i], self.ord_qty[i])
            self.feel(i, home)

    def household_market(self, home: int, hour: int) -> int:
        """Return where a household acts in an own hour."""
        return home if hour == 1 else HOUSEHOLD_DAY[hour]

    def paid_work(self, i: int, q: int, income_now: int) -> None:
        """Labour settled."""
        wage = q * self.price[0]
        tax = wage * 13107 // 65536
        works = 2 * q >= self.skill[i]
        benefit = 0 if works else self.macro["BENEFIT"] * self.skill[i]
        fund = self.skill[i] * self.macro["FUND_RATE"]
        transfer = self.macro["TRANSFER_UCR"]
        received = wage - tax + benefit + transfer + fund
        self.cash[i] += received
        self.employed[i] = int(works)
        self.flow("FLOW_TAX", tax)
        self.flow("FLOW_BENEFIT", benefit)
        self.flow("FLOW_TRANSFER", transfer)
        self.flow("FLOW_FUND_PAID", fund)
        self.flow("FLOW_EMPLOYED" if works else "FLOW_UNEMPLOYED", 1)
        income = received + 24 * income_now
        y = self.income_ema[i]
        self.income_ema[i] = min(y + ((income // 1000 - y + 31) >> 5), 2**31 - 1)
        h = self.draw(i, 77)
        w = self.reserve_wage[i]
        step = self.macro["WAGE_STEP_Q8"] if works else -38 * 256
        w += (step + (h >> 8) % 256) >> 8
        w += (self.macro["EXPECTED_STEP_Q8"] + h % 256) >> 8
        offset = ((2654435761 * i) >> 7) % 1024 - 512
        w += (self.macro["WAGE_REFERENCE"] + offset - 461 - w + (h >> 16) % 128) >> 7
        self.reserve_wage[i] = w
        self.flow("FLOW_WAGE_LEVELS", w)

    def order_goods(self, i: int, m: int) -> None:
        """Goods order."""
        h = self.draw(i, 3)
        p, price = self.level[m], self.price[m]
        spend = 703.125 * self.income_ema[i] + float(self.cash[i]) * spent_a_day(i)
        spend = spend * (0.81689 + self.confidence[i] * (0.25 / 32768.0)) * (self.macro["RHO_Q16"] / 65536.0)
        subsistence = self.macro["SUBSISTENCE"]
        taste = 192 + mix32(97 * i + 0x9E3779B9 * m) % 128
        r = ((h >> 3) % 256) / 256.0
        if spend >= subsistence:
            share = self.visit_share_q16[m] / (65536.0 * 256.0 * price)
            wanted = self.subsistence[m] + ((spend - subsistence) * taste) * share + r
        else:
            wanted = spend * (self.subsistence[m] * (1.0 / (subsistence + 1.0))) + r
        highest = p + min(800, self.up)
        self.ord_qty[i] = min(int(wanted), LOTS_MAX, self.cash[i] // self.ladder[highest])
        limit = int(self.slow_level[m]) + 180 + ((normal(h) * 830) >> 11)
        self.ord_level[i] = clip(limit, p - 6000, highest)

    def order_shares(self, i: int, m: int) -> None:
        """Asset order."""
        h = self.draw(i, 5)
        p, price = self.level[m], self.price[m]
        own = self.shares[i] * price
        believed = 8192 + clip(self.fundamental[m] - p, -3000, 3000)
        base = believed * self.base_share_q15[m] * (1.0 / (8192.0 * 32768.0))
        mood = self.confidence[i] + self.greed[i] - 2 * self.fear[i]
        target = float(self.cash[i] + own) * (base * (0.824 + mood * (0.25 / 32768.0)))
        q = math.floor((target - own) * (1.0 / (64.0 * price)) + (h >> 24) / 256.0)
        q = clip(q, -LOTS_MAX, LOTS_MAX)
        noise = normal(h) * 40 // 148 + self.quote_shift[m]
        highest = p + min(200, self.up)
        if q > 0:
            q = min(q, self.cash[i] // 4 // self.ladder[highest])
        q = max(q, -self.shares[i])
        self.ord_qty[i] = q
        if q > 0:
            self.ord_level[i] = min(p - 40 + noise, highest)
        else:
            self.ord_level[i] = max(min(p + 40 + noise - self.panic_bias[m], highest), p - self.down)

    # --- traders ------------------------------------------------------------------------------------------------

    def traders(self, b: int, members: range, m: int) -> None:
        """One block of traders."""
        first = self.layout.trader_first
        orders = [(self.ord_level[i], self.ord_qty[i]) for i in members]
        for i, fill in zip(members, self.fills(orders, m, *self.block_before[b]), strict=True):
            self.flow("FLOW_FUND_INCOME", self.income_per_lot[m] * self.inventory[i - first])
            self.inventory[i - first] += fill
            self.cash[i] -= fill * self.price[m]
            self.ord_level[i], self.ord_qty[i] = self.trade(i, m, self.cash[i], self.inventory[i - first])
            self.stand(m, self.ord_level[i], self.ord_qty[i])
            self.feel(i, m)

    def trade(self, i: int, m: int, cash: int, inventory: int) -> tuple[int, int]:
        """Return a trader's next order."""
        h = self.draw(i)
        vm, p, sigma = self.vm_q8[m], self.level[m], self.sigma_q4[m]
        is_active = h % 256 < min(250, ((vm * vm >> 8) * 48) >> 8)
        trait = mix32(2246822519 * i + 11)
        group = self.group_draw[m][GROUP[(trait >> 16) % 256]]
        if trait % 65536 < self.chartists_q16[m]:
            trend = self.trend_fast[m] if (trait >> 24) % 2 else self.trend_slow[m]
            value = (trend * 75 >> 12) + (sigma * 11 * group >> 12)
        else:
            value = (clip(self.fundamental[m] - p, -2000, 2000) * 24 >> 12) + (sigma * group >> 10)
        value += (normal(mix32(h + 0x51ED270B)) * vm * 6 >> 15) - self.panic_bias[m] + self.quote_shift[m]
        edge = ((h >> 8) % 1024) * (60 * vm >> 8) >> 10
        size = (8 + (h >> 18) % 32) * vm >> 8
        if value >= 0:
            level = min(p + value - edge, p + min(2000, self.up))
            lots = min((cash >> 9) * size // self.price[m], cash // self.ladder[level], LOTS_MAX)
            return level, lots if is_active else 0
        lots = min((inventory * size + (h >> 23)) >> 9, inventory, LOTS_MAX)
        return max(p + value + edge, p - self.down), -lots if is_active else 0

    # --- producers ----------------------------------------------------------------------------------------------

    def segment(self, s: int) -> None:
        """All producers of a segment."""
        layout = self.layout
        m, first = int(layout.segment_market[s]), layout.producer_first
        members = range(int(layout.segment_start[s]), int(layout.segment_end[s]))
        offers = [(self.sell_level[i - first], -self.sell_qty[i - first]) for i in members]
        for i, fill in zip(members, self.fills(offers, m, 0, self.segment_before[s]), strict=True):
            self.out[i - first] += fill
            self.day_sales[i - first] -= fill
            self.cash[i] -= fill * self.price[m]
            self.goods_flow[self.places.GOODS_SOLD_OUT][m] -= fill
            self.feel(i, m)
        for b in range(int(layout.segment_block_start[s]), int(layout.segment_block_end[s])):
            self.producers(b, m, int(layout.block_phase[b]))
        for i in members:
            self.offer(i, i - first, m)

    def producers(self, b: int, m: int, phase: int) -> None:
        """One block of producers, without its offers."""
        first = self.layout.producer_first
        members = range(int(self.layout.block_start[b]), int(self.layout.block_end[b]))
        hour, next_hour = own_hour(self.tick, phase, PRODUCERS_TURN), own_hour(self.tick + 1, phase, PRODUCERS_TURN)
        market = (0, INPUT_1[m], INPUT_2[m], 0)[hour % 4]
        orders = [(self.ord_level[i], self.ord_qty[i]) for i in members]
        fills = self.fills(orders, market, *self.block_before[b]) if market >= 0 else [0] * len(orders)
        for i, fill in zip(members, fills, strict=True):
            k = i - first
            self.cash[i] -= fill * self.price[market]
            if hour % 4 in (0, 3):
                self.hours[k] += fill
                self.produce(i, k, m)
            else:
                stock = self.in1 if hour % 4 == 1 else self.in2
                stock[k] += fill
            if (self.tick + phase) % 24 == 22:
                self.keep_books(i, k, m)
            self.purchase(i, k, m, next_hour)

    def produce(self, i: int, k: int, m: int) -> None:
        """Production."""
        q = self.hours[k] * 65536 // self.hours_q16[m]
        if m < 8:
            quota = self.quota[m - 1]
            q = min(q, quota // 12 + 1) if quota > 0 else 0
        else:
            h = self.draw(i, 51)
            q = min(q, self.in1[k] * 65536 // self.input1_q16[m], self.in2[k] * 65536 // self.input2_q16[m])
            use1 = min((q * self.input1_q16[m] + h % 65536) >> 16, self.in1[k])
            use2 = min((q * self.input2_q16[m] + (h >> 16)) >> 16, self.in2[k])
            self.in1[k] -= use1
            self.in2[k] -= use2
            self.goods_flow[self.places.GOODS_USED][INPUT_1[m]] += use1
            self.goods_flow[self.places.GOODS_USED][INPUT_2[m]] += use2
        self.out[k] += q
        self.hours[k] = 0
        self.goods_flow[self.places.GOODS_PRODUCED][m] += q

    def keep_books(self, i: int, k: int, m: int) -> None:
        """Booking, steps a to f."""
        self.sales_ema[k] = max(self.sales_ema[k] + ((16 * self.day_sales[k] - self.sales_ema[k] + 8) >> 4), 16)
        self.day_sales[k] = 0
        sales = self.sales_ema[k] >> 4
        step = self.draw(i, 9) % 64
        ask, cost, p = self.ask[k], self.cost_level[m], self.level[m]
        target_stock = 4 * sales
        if 4 * self.out[k] > 5 * target_stock:
            ask -= step
        elif 4 * self.out[k] < 3 * target_stock:
            ask += step
        markup = 953 + round(2_000.0 * (0.05 - min(0.08, self.unemployment)))
        ask += (cost + markup - ask + 16) >> 5
        self.ask[k] = clip(clip(ask, cost + 100, cost + 5000), p - 1500, p + 1500)

        interest = self.debt[k] * self.macro["LOAN_RATE_Q32"] // 2**32
        paid = min(interest, self.cash[i])
        self.cash[i] -= paid
        self.debt[k] += interest - paid
        self.flow("FLOW_INTEREST", interest)
        self.flow("FLOW_LOANS_NEW", interest - paid)
        revenue = sales * self.price[m]
        target = self.macro["DEBT_DAYS_Q8"] * revenue // 256
        if self.debt[k] < target:
            loan = (target - self.debt[k]) // 64
            self.debt[k] += loan
            self.cash[i] += loan
            self.flow("FLOW_LOANS_NEW", loan)
        elif self.debt[k] > target and self.cash[i] > 0:
            back = min((self.debt[k] - target) // 64, self.cash[i])
            self.debt[k] -= back
            self.cash[i] -= back
            self.flow("FLOW_LOANS_REPAID", back)
        if self.cash[i] > 3 * revenue:
            dividend = (self.cash[i] - 3 * revenue) // 8
            self.cash[i] -= dividend
            self.dividends[m] += dividend
        if self.debt[k] > 90 * revenue + 1000 * 10**6:
            self.flow("FLOW_WRITTEN_OFF", self.debt[k])
            self.debt[k] = 0

    def purchase(self, i: int, k: int, m: int, next_hour: int) -> None:
        """Purchase order for the next own hour."""
        h = self.draw(i, 21)
        sales = self.sales_ema[k] >> 4
        desired = clip(sales + (4 * sales - self.out[k]) // 4, 0, 3 * sales // 2 + 1)
        if self.price[m] < self.unit_cost[m]:
            desired = desired * 3 // 4
        step = (h >> 16) % 128
        market = (0, INPUT_1[m], INPUT_2[m], 0)[next_hour % 4]
        if market < 0:
            self.ord_level[i], self.ord_qty[i] = 0, 0
            return
        p = self.level[market]
        if market == 0:
            q = (desired * self.hours_q16[m] // 12 + h % 65536) // 65536
            limit = min(self.macro["WAGE_REFERENCE"] + 60 + step, p + self.up)
        else:
            is_first = next_hour % 4 == 1
            stock = (self.in1 if is_first else self.in2)[k]
            need = (3 * sales + desired) * (self.input1_q16 if is_first else self.input2_q16)[m] // 65536
            q = max(0, min(need - stock, need // 4 + 1))
            limit = p - 30 + step + (100 if 3 * stock < need else 0)
            cap = max(min(p + self.up, self.fundamental[market] + 1500), p - 6000)
            limit = min(limit, cap)
        q = min(q, LOTS_MAX)
        price = self.ladder[limit]
        if q * price > self.cash[i]:
            room = 2 * self.macro["DEBT_DAYS_Q8"] * sales * self.price[m] // 256 - self.debt[k]
            loan = max(0, min(q * price - self.cash[i], room))
            self.cash[i] += loan
            self.debt[k] += loan
            self.flow("FLOW_LOANS_NEW", loan)
            q = min(q, self.cash[i] // price)
        self.ord_level[i], self.ord_qty[i] = limit, q
        self.stand(market, limit, q)

    def offer(self, i: int, k: int, m: int) -> None:
        """Offer of the own good."""
        p = self.level[m]
        lots = (self.out[k] + self.draw(i, 33) % 32) >> 5
        level = self.ask[k]
        if m < 8:
            level = max(p - 48 + self.draw(i, 35) % 128, self.cost_level[m] - 600)
        self.sell_level[k] = max(level, p - self.down)
        self.sell_qty[k] = min(lots, LOTS_MAX)
        self.stand(m, self.sell_level[k], -self.sell_qty[k])
