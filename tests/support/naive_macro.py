"""Phases 3 to 6 written plainly from ECONOMY A8 to A11 with Python numbers and dictionaries, to compare with.

Floats follow the same order of operations as the specification writes them; the twin and the phases agree to 1e-9.
"""

from __future__ import annotations

from math import sqrt

from engine import state as at
from engine.config import Config
from engine.markets import FINAL, FINITE, ID, IMPORTANCE, INPUT_1, INPUT_2, RENEWABLE, SECTOR, VISITS
from engine.rng import mix32
from engine.state import State

GOODS = range(8, 24)
RAW = range(1, 8)
SHARES = range(24, 31)
ASSETS = (*RAW, *SHARES, 31)


class NaiveMacro:
    """A copy of what phases 3 to 6 read; run() advances it by one tick, after which attributes can be compared."""

    CHANGED = (
        "vm_q8", "target_sentiment", "target_fear", "target_greed", "target_confidence", "slow_level", "trend_fast",
        "trend_slow", "fundamentalists", "chartists_q16", "sigma_q4", "panic_bias", "is_panic", "is_euphoria",
        "unit_cost", "cost_level", "news", "dividend_ema", "fundamental", "pools", "ledger", "income_per_lot",
        "visit_share_q16", "input1_q16", "input2_q16", "reserves", "reserves_added", "extracted_day", "quota",
        "scarcity", "multiplier", "hours_q16", "goods_made", "goods_gone",
    )  # fmt: skip

    def __init__(self, state: State, config: Config) -> None:
        self.config = config
        self.tick = state.tick
        self.households = state.layout.households
        self.extractors = state.layout.extractors // 7
        self.ladder = state.ladder
        self.keys = state.keys.tolist()
        self.macro: list[float] = state.macro.tolist()
        self.counters: list[int] = state.counters.tolist()
        self.days: list[list[float]] = state.days.tolist()
        for name in (
            *self.CHANGED, "mood_sum", "mood_count", "market_return", "level", "price", "flows", "bids_total",
            "cleared_volume", "goods_flow", "dividends", "shares_out", "subsistence", "reserves_base", "base_hours",
        ):  # fmt: skip
            setattr(self, name, getattr(state, name).tolist())

    def run(self) -> None:
        """Advance by phases 3, 4 and 5."""
        self.psychology()
        self.values()
        self.ledger_table()
        self.day_sums()
        if self.tick % 24 == 23:
            self.day_end()
        self.resources()

    def psychology(self) -> None:
        """A8: global means, then every market's targets, mix and shocks; the shock decays after use."""
        m_ = self.macro
        count = sum(self.mood_count)
        means = [sum(row) / count / 32768 for row in self.mood_sum]
        names = (at.SENTIMENT, at.FEAR, at.GREED, at.CONFIDENCE, at.MEMORY)
        for name, mean in zip(names, means, strict=False):
            m_[name] = mean
        mood, away = means[0], means[5]
        m_[at.HERDING] = abs(mood - 0.5) / (away + 0.02)
        m_[at.EXTREMITY] = min(1, 8 * abs(mood - 0.5))
        m_[at.VOLATILITY_MULTIPLIER] = self.multiplier_of(m_[at.FEAR], m_[at.GREED], m_[at.HERDING], m_[at.EXTREMITY])
        for m in range(1, 32):
            self.market_minds(m)
        m_[at.SHOCK] *= 0.995

    def multiplier_of(self, fear: float, greed: float, herding: float, extremity: float) -> float:
        """The volatility multiplier."""
        c = self.config
        return 1 + fear * c.fear_weight + greed * c.greed_weight + herding * 0.5 + extremity * c.sentiment_weight

    def market_minds(self, m: int) -> None:
        """One market of A8."""
        own = [row[m] / self.mood_count[m] / 32768 for row in self.mood_sum]
        mood, fear, greed, away = own[0], own[1], own[2], own[5]
        herding = abs(mood - 0.5) / (away + 0.02)
        vm = self.multiplier_of(fear, greed, herding, min(1, 8 * abs(mood - 0.5)))
        self.vm_q8[m] = int(vm * 256)
        r = self.market_return[m]
        typical = 20 if m in RAW else 5 if m in GOODS else 18 if m in SHARES else 9
        z = r / typical
        u, shock = self.macro[at.UNEMPLOYMENT], self.macro[at.SHOCK]

        def target(x: float) -> int:
            return int(32_700 * min(1, max(0, x)))

        self.target_fear[m] = target(0.04 + 0.35 * max(-z, 0) + 0.3 * max(0, u - 0.08) + shock)
        self.target_greed[m] = target((0.04 + 0.2 * max(z, 0)) * (0.8 if abs(z) < 0.5 else 1))
        self.target_sentiment[m] = target(
            0.5 + 0.05 * z + 0.35 * (mood - 0.5) + 0.15 * (self.macro[at.SENTIMENT] - 0.5) - 0.5 * shock
        )
        self.target_confidence[m] = target(0.75 - 0.1 * abs(z) - 0.3 * fear - 0.5 * max(0, u - 0.06))
        bound = self.config.herding_threshold
        panic = herding > 0.7 * bound and fear > 0.35 and mood < 0.47
        still = herding > 0.35 * bound and fear > 0.25 and mood < 0.485
        self.panic_bias[m] = int(60 * (fear - 0.35)) if panic else 0
        self.is_panic[m] = int(panic or (still and self.is_panic[m]))
        euphoria = herding > 0.7 * bound and greed > 0.35 and mood > 0.53
        still = herding > 0.35 * bound and greed > 0.25 and mood > 0.515
        self.is_euphoria[m] = int(euphoria or (still and self.is_euphoria[m]))
        self.trend_fast[m] += (16 * r - self.trend_fast[m]) // 8
        self.trend_slow[m] += (16 * r - self.trend_slow[m]) // 64
        if m in GOODS:
            self.slow_level[m] += (self.level[m] - self.slow_level[m]) / 480
            return
        share = self.fundamentalists[m]
        apart = (self.fundamental[m] - self.level[m]) / 1e4
        a = 0.25 + 1.8 * (2 * share - 1) + 18 * apart**2 - (greed + fear - 0.1)
        noise = self.normal(2, m)
        share = min(0.97, max(0.05, share + 0.006 * (1 / (1 + (1 - a / 4096) ** 4096) - share) + 0.010 * noise))
        self.fundamentalists[m] = share
        self.chartists_q16[m] = int((1 - share) * 65536)
        base = 12 if m in RAW else 9 if m in SHARES else 4.5
        drift, crowd = self.trend_fast[m] / 16 / typical, 1 - share - 0.3
        self.sigma_q4[m] = int(16 * base * max(0.3, 1 + 4 * (vm - 1.15) - 0.3 * drift + 1.2 * crowd))

    def normal(self, stream: int, index: int, sub: int = 0) -> float:
        """z of an index of a stream, byte by byte."""
        k0, k1 = self.keys[stream]
        h = int(mix32((index * 0x9E3779B9 + k0 + sub) & 0xFFFFFFFF))
        h = int(mix32(h ^ k1))
        return (sum(h.to_bytes(4, "little")) - 510) / 147.8

    def level_of(self, value: float) -> int:
        """Largest level whose price is not above a value."""
        return int(self.ladder.searchsorted(int(value), side="right")) - 1

    def values(self) -> None:
        """A7: wage reference, vacancies, costs of goods, news, dividends, fundamental levels."""
        m_, c_, flows = self.macro, self.counters, self.flows
        settled = flows[at.FLOW_EMPLOYED] + flows[at.FLOW_UNEMPLOYED]
        if settled:
            m_[at.WAGE_LEVEL] += (flows[at.FLOW_WAGE_LEVELS] / settled + 461 - m_[at.WAGE_LEVEL]) / 24
        bids = self.bids_total[0]
        m_[at.VACANCY] += ((bids - self.cleared_volume[0]) / (bids + 1) - m_[at.VACANCY]) / 120
        c_[at.WAGE_STEP_Q8] = int(256 * 2 * (1 + 4 * m_[at.VACANCY]))
        c_[at.WAGE_REFERENCE] = int(m_[at.WAGE_LEVEL])
        c_[at.WAGE] = int(self.ladder[c_[at.WAGE_REFERENCE]])
        self.fundamental[0] = c_[at.WAGE_REFERENCE]
        i = m_[at.POLICY_RATE]
        for m in range(1, 32):
            if m in GOODS:
                inputs = self.input1_q16[m] * self.price[INPUT_1[m]] + self.input2_q16[m] * self.price[INPUT_2[m]]
                self.unit_cost[m] = (c_[at.WAGE] * self.hours_q16[m] + inputs) // 65536
                self.cost_level[m] = self.level_of(self.unit_cost[m])
                self.fundamental[m] = self.cost_level[m] + 953
                continue
            self.news[m] = (self.news[m] + (9 if m in RAW else 7) * self.normal(3, m)) * (0.999 if m in RAW else 0.9998)
            if m in RAW:
                worth = self.cost_level[m] + 953
            elif m in SHARES:
                self.dividend_ema[m] += (8_640 * self.income_per_lot[m] - self.dividend_ema[m]) / 4_320
                worth = self.level_of(self.dividend_ema[m] / max(0.07 + 0.25 * (i - 0.04), 0.04))
            else:
                worth = self.level_of(8_640 * self.income_per_lot[m] / max(0.06 + 0.5 * (i - 0.04), 0.025))
            self.fundamental[m] = worth + int(self.news[m])

    def ledger_table(self) -> None:
        """A9: the table of accounts, the bank's profit, the next tick's income and distribution."""
        f = self.flows
        for m in (*RAW, *GOODS):
            self.pools[SECTOR[m]] += self.dividends[m]
        for m in SHARES:
            self.pools[m - 24] -= self.income_per_lot[m] * self.shares_out[m]
        self.pools[7] += f[at.FLOW_FUND_INCOME] - f[at.FLOW_FUND_PAID]
        received = f[at.FLOW_TAX] + f[at.FLOW_ADVANCE_BACK] + f[at.FLOW_ESTATE_SOLD] + f[at.FLOW_ESTATE_INCOME]
        paid = f[at.FLOW_BENEFIT] + f[at.FLOW_TRANSFER] + f[at.FLOW_ADVANCE_PAID]
        self.ledger[at.TREASURY] += received - paid - self.income_per_lot[31] * self.shares_out[31]
        new = f[at.FLOW_LOANS_NEW] + f[at.FLOW_OUTSIDE_LOANS_NEW]
        back = f[at.FLOW_LOANS_REPAID] + f[at.FLOW_OUTSIDE_REPAID]
        self.ledger[at.BANK] += back + f[at.FLOW_INTEREST] + f[at.FLOW_OUTSIDE_INTEREST] - new
        self.ledger[at.LOANS] += new - back - f[at.FLOW_WRITTEN_OFF] - f[at.FLOW_OUTSIDE_WRITTEN_OFF]
        equity = self.ledger[at.BANK] + self.ledger[at.LOANS]
        if self.tick % 24 == 5 and equity > 0:
            self.ledger[at.BANK] -= equity // 30
            self.pools[6] += equity // 30
        for m in SHARES:
            self.income_per_lot[m] = self.pools[m - 24] // (240 * self.shares_out[m])
        self.counters[at.FUND_RATE] = max(0, self.pools[7] // self.counters[at.TOTAL_SKILL])

    def day_sums(self) -> None:
        """A17 phase 4 (b)."""
        m_, f = self.macro, self.flows
        m_[at.CPI] = sum(VISITS[ID[g]] / 22 * self.price[ID[g]] / 1e6 for g in FINAL)
        money = -(self.ledger[0] + self.ledger[1] + self.ledger[2])
        for name, value in (
            (at.DAY_CPI, m_[at.CPI]), (at.DAY_MONEY, money), (at.DAY_NOMINAL, f[at.FLOW_NOMINAL]),
            (at.DAY_REAL, f[at.FLOW_REAL] * 1e6), (at.DAY_EMPLOYED, f[at.FLOW_EMPLOYED]),
            (at.DAY_UNEMPLOYED, f[at.FLOW_UNEMPLOYED]), (at.DAY_TAX, f[at.FLOW_TAX]),
            (at.DAY_BENEFIT, f[at.FLOW_BENEFIT]),
            (at.DAY_COUPON, self.income_per_lot[31] * self.shares_out[31]),
        ):  # fmt: skip
            m_[name] += value

    def day_end(self) -> None:
        """A9's list in its order."""
        m_, c_, day = self.macro, self.counters, self.counters[at.DAY]
        money, cpi = m_[at.DAY_MONEY] / 24, m_[at.DAY_CPI] / 24
        counted = m_[at.DAY_EMPLOYED] + m_[at.DAY_UNEMPLOYED]
        if counted:
            m_[at.UNEMPLOYMENT] += (m_[at.DAY_UNEMPLOYED] / counted - m_[at.UNEMPLOYMENT]) / 4
        m_[at.CONSUMPTION_NOMINAL] += (m_[at.DAY_NOMINAL] - m_[at.CONSUMPTION_NOMINAL]) / 10
        m_[at.CONSUMPTION_REAL] += (m_[at.DAY_REAL] - m_[at.CONSUMPTION_REAL]) / 10
        m_[at.POTENTIAL] += (m_[at.CONSUMPTION_REAL] - m_[at.POTENTIAL]) / 1440
        m_[at.GAP] = m_[at.CONSUMPTION_REAL] / m_[at.POTENTIAL] - 1
        m_[at.VELOCITY] = 360 * m_[at.DAY_NOMINAL] / money
        for row, value in enumerate((cpi, money, m_[at.VELOCITY])):
            self.days[row][day % 720] = value

        def ago(row: int, days: int) -> float:
            return self.days[row][(day - days) % 720]

        if day >= 90:
            m_[at.INFLATION_QUARTERLY] = (cpi / ago(0, 90)) ** 4 - 1
            m_[at.MONEY_GROWTH] = (money / ago(1, 90)) ** 4 - 1
            m_[at.VELOCITY_CHANGE] = m_[at.VELOCITY] / ago(2, 90) - 1
        if day >= 360:
            m_[at.INFLATION_YEARLY] = cpi / ago(0, 360) - 1
        else:
            m_[at.INFLATION_YEARLY] += (m_[at.INFLATION_QUARTERLY] - m_[at.INFLATION_YEARLY]) / 100
        base = self.config.base_inflation_rate
        m_[at.INFLATION_FORMULA] = (
            base
            + 0.25 * (m_[at.MONEY_GROWTH] - base)
            + 0.1 * m_[at.VELOCITY_CHANGE]
            + 0.3 * m_[at.GAP]
            + 0.02 * (m_[at.GREED] - m_[at.FEAR])
            + 0.02 * (m_[at.SENTIMENT] - 0.5)
        )
        mix = 0.5 * base + 0.35 * m_[at.INFLATION_QUARTERLY] + 0.15 * m_[at.INFLATION_FORMULA]
        m_[at.EXPECTED_INFLATION] += 0.03 * (mix - m_[at.EXPECTED_INFLATION])
        if day >= 1:
            m_[at.INFLATION_TREND] += (360 * (cpi / ago(0, 1) - 1) - m_[at.INFLATION_TREND]) / 40
        self.policy(base, money)
        self.baskets()
        for name in range(at.DAY_CPI, at.DAY_COUPON + 1):
            m_[name] = 0.0
        c_[at.DAY] += 1

    def policy(self, base: float, money: float) -> None:
        """Steps 5 to 7."""
        m_, c_ = self.macro, self.counters
        pi, u = m_[at.INFLATION_TREND], m_[at.UNEMPLOYMENT]
        if self.config.policy_active:
            aim = 0.02 + pi + 0.5 * (pi - base) + 0.5 * 2 * (0.05 - u) + 0.5 * max(0, pi - 0.1)
            m_[at.POLICY_RATE] += 0.03 * (min(0.5, max(0, aim)) - m_[at.POLICY_RATE])
        i = m_[at.POLICY_RATE]
        c_[at.TIGHTENING] = int(self.config.policy_active and pi > 0.1)
        c_[at.EASING] = int(self.config.policy_active and pi < 0 and i < 0.012)
        rho = min(1.08, max(0.82, 1 - 1.5 * (i - m_[at.EXPECTED_INFLATION] - 0.02)))
        m_[at.RHO] = rho if self.config.policy_active else 1.0
        m_[at.DEBT_DAYS] = max(4, 20 * (1 - 4 * (i - 0.04)) / (2 if c_[at.TIGHTENING] else 1))
        c_[at.RHO_Q16] = int(m_[at.RHO] * 65536)
        c_[at.DEBT_DAYS_Q8] = int(m_[at.DEBT_DAYS] * 256)
        c_[at.LOAN_RATE_Q32] = int((i + 0.03) / 360 * 2**32)
        c_[at.EXPECTED_STEP_Q8] = int(1e4 * m_[at.EXPECTED_INFLATION] / 360 * 256)
        c_[at.BENEFIT] = int(c_[at.WAGE] * 4) // 10
        m_[at.TAX_DAY] += (m_[at.DAY_TAX] - m_[at.TAX_DAY]) / 5
        m_[at.BENEFIT_DAY] += (m_[at.DAY_BENEFIT] - m_[at.BENEFIT_DAY]) / 5
        q = 0.03 * money / 360 if c_[at.EASING] else -0.06 * money / 360 if c_[at.TIGHTENING] else 0.0
        surplus = m_[at.TAX_DAY] - m_[at.BENEFIT_DAY] - m_[at.DAY_COUPON] + base * money / 360 + q
        surplus -= 0.6 * (0.05 - u) * m_[at.CONSUMPTION_NOMINAL]
        m_[at.TRANSFER] += (max(0, surplus / self.households) - m_[at.TRANSFER]) / 5
        c_[at.TRANSFER_UCR] = int(m_[at.TRANSFER])

    def baskets(self) -> None:
        """Step 8."""
        cpi = self.macro[at.CPI]
        self.counters[at.SUBSISTENCE] = sum(VISITS[m] * self.subsistence[m] * self.price[m] for m in range(32))
        root = {m: sqrt(self.price[m] / 1e6 / cpi) for m in GOODS}
        mass = sum(VISITS[m] * root[m] for m in GOODS)
        for m in GOODS:
            if VISITS[m]:
                self.visit_share_q16[m] = int(65536 * root[m] / mass)
            for coefficient, market, base in (
                (self.input1_q16, INPUT_1[m], 13107),
                (self.input2_q16, INPUT_2[m], 6553),
            ):
                ratio = max(0.01, self.price[market] / 1e6 / cpi)
                coefficient[m] += int((base * min(1.5, max(0.25, ratio**-0.5)) - coefficient[m]) / 20)

    def resources(self) -> None:
        """A10, and the totals of goods."""
        for m in range(1, 32):
            self.goods_made[m] += self.goods_flow[at.GOODS_PRODUCED][m]
            self.goods_gone[m] += self.goods_flow[at.GOODS_USED][m] + self.goods_flow[at.GOODS_CONSUMED][m]
        for m in RAW:
            r, taken, base = m - 1, self.goods_flow[at.GOODS_PRODUCED][m], self.reserves_base[m - 1]
            self.reserves[r] -= taken
            if self.tick % 24 == 0:
                room = 1 - self.reserves[r] / base
                if m in RENEWABLE:
                    grown = max(0, int(0.00286 * self.reserves[r] * room))
                else:
                    grown = 0 if m in FINITE else max(0, int(0.0006 * base * room / 0.3))
                self.reserves[r] += grown
                self.reserves_added[r] += grown
                self.extracted_day[r] = 0
            self.extracted_day[r] += taken
            self.quota[r] = int(3 * self.config.depletion_rate * self.reserves[r] / self.extractors)
            s = max(0, 1 - self.reserves[r] / base)
            self.scarcity[r] = s
            self.multiplier[r] = 1 + s * 3 * IMPORTANCE[r]
            self.hours_q16[m] = round(self.base_hours[m] * (1 + 0.5 * s) * 65536)
            self.unit_cost[m] = int(self.counters[at.WAGE] * self.base_hours[m] * (1 + 0.5 * s) * self.multiplier[r])
            self.cost_level[m] = self.level_of(self.unit_cost[m])
