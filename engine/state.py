"""The world as named arrays: one per quantity, with its type, length and unit.

Persistent arrays are the world; they make up the state hash, in the order they are declared here. Scratch arrays
carry what one phase of a tick tells another, or what was measured for publication; they can be rebuilt.
Raising LAYOUT_VERSION is needed whenever the list, order or type of persistent arrays changes.
Source: ECONOMY A3, A14 (state hash).
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.agent_index import table_size
from engine.config import Config
from engine.events import OTHER, Event
from engine.ladder import prices
from engine.layout import Layout, lay_out
from engine.markets import HOURS, MARKETS, POOLS, RESOURCES
from engine.messages import ACTION, ORDER_UPDATE, OUTCOME
from engine.rng import STREAMS

LAYOUT_VERSION = 3

I8 = NDArray[np.int8]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
U32 = NDArray[np.uint32]
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

Q15_ONE = 32_767
GROUPS = 64
"""Herding groups per market."""
DAYS_KEPT = 720

WINDOW_DOWN, WINDOW_UP = 6_931, 4_054
"""Widest auction window below and above the reference level: -49.996 % .. +49.987 %."""
SLOTS = 11_264
"""Histogram slots of a market's side; CENTRE is the reference level."""
CENTRE = 7_040

BOOK_LEVELS = 20
"""Levels a side of the unfilled book that are noted at most."""

# --- macro: indices into State.macro (float64) -------------------------------------------------------------------
(
    POLICY_RATE,  # i, a year
    EXPECTED_INFLATION,  # a year
    INFLATION_QUARTERLY,  # annualised
    INFLATION_YEARLY,
    INFLATION_TREND,  # pi, a year
    UNEMPLOYMENT,  # u, EMA 4 days, share
    CPI,  # 1 at the start
    PPI,  # 1 at the start
    CONSUMPTION_NOMINAL,  # ucr a day, EMA 10 days
    CONSUMPTION_REAL,  # ucr a day at base prices, EMA 10 days
    POTENTIAL,  # ucr a day, EMA 1 440 days
    GAP,  # real / potential - 1
    MONEY_GROWTH,  # a year
    VELOCITY,  # a year: 360 x the day's nominal consumption / M
    VELOCITY_CHANGE,  # V of the day / V 90 days ago - 1
    INFLATION_FORMULA,  # document 004's formula and its five terms
    TERM_BASE,
    TERM_MONEY,
    TERM_VELOCITY,
    TERM_DEMAND,
    TERM_BEHAVIOUR,
    SHOCK,  # event shock of the minds
    SENTIMENT,  # global means in [0, 1] of phase 3
    FEAR,
    GREED,
    CONFIDENCE,
    MEMORY,
    HERDING,
    EXTREMITY,
    DISAGREEMENT,  # mean |s - .5|
    SENTIMENT_VARIANCE,
    VOLATILITY_MULTIPLIER,
    WAGE_LEVEL,  # w_ref, level (float)
    VACANCY,  # EMA 1/120
    WAGE_STEP,  # a, bp a day for the employed
    TAX_DAY,  # EMA 1/5 of the day's sums, ucr
    BENEFIT_DAY,  # EMA 1/5, ucr
    TRANSFER,  # ucr per household and day
    RHO,  # policy factor of consumption
    DEBT_DAYS,  # d
    DAY_CPI,  # sums of this day over its ticks so far
    DAY_MONEY,
    DAY_NOMINAL,
    DAY_REAL,
    DAY_EMPLOYED,
    DAY_UNEMPLOYED,
    DAY_TAX,
    DAY_BENEFIT,
    DAY_COUPON,
    EQUITY_BASE,  # sum of price x shares outstanding of the seven shares at the start, ucr
    EQUITY_INDEX,  # 100 at the start
    GDP_NOMINAL_LAST,  # the last whole day's nominal consumption, ucr
    MONEY_LAST,  # mean money supply of the last whole day, ucr
    GINI,
    TOP_SHARE,
) = range(55)
MACRO = 55

# --- counters: indices into State.counters (int64) ---------------------------------------------------------------
(
    DAY,  # whole days since the start
    TIGHTENING,  # 1 while it is on
    EASING,  # QE: 1 while it is on
    DISCOVERIES,  # events of each channel so far: seq of the event channels
    CATASTROPHES,
    OTHER_EVENTS,
    WAGE,  # W, ucr an hour
    BENEFIT,  # b, ucr an hour
    SUBSISTENCE,  # Gamma, ucr a day
    FUND_RATE,  # fund distribution per hour of skill, ucr
    LOAN_RATE_Q32,  # daily interest rate of debts
    RHO_Q16,
    DEBT_DAYS_Q8,
    WAGE_STEP_Q8,  # wage step of the employed, bp in Q8
    WAGE_REFERENCE,  # int w_ref, level
    TRANSFER_UCR,  # transfer per household and day, whole ucr
    ORDER_COUNT,  # standing outside orders
    SLOTS_USED,  # outside agents' slots in use or used before: arrays beyond hold zeros
    AGENT_COUNT,  # registered outside agents
    MOOD_COUNT,  # outside agents that have used set_sentiment
    VM_Q8,
    EXPECTED_STEP_Q8,  # expected inflation / 360 as bp in Q8, the wage step of everybody
    PANIC_MARKETS,
    EUPHORIA_MARKETS,
    TOTAL_SKILL,  # hours offered a day by all households; constant
    HOUSEHOLD_WEALTH,  # mean wealth of a household at the last day end, ucr
    LEDGER_SUM,  # sum of all cash accounts at the last day end, ucr: always 0
    NEXT_DEADLINE,  # no agent's orders are to be cancelled before this tick; 0 = never
) = range(28)
COUNTERS = 28

# --- ledger: indices into State.ledger (int64, ucr) --------------------------------------------------------------
TREASURY, BANK, CENTRAL_BANK, LOANS = range(4)

# --- flows of a tick: indices into State.flows (int64), the sums the behaviour phase leaves for the ledger ------
(
    FLOW_TAX,
    FLOW_BENEFIT,
    FLOW_TRANSFER,
    FLOW_FUND_PAID,  # fund distributions paid to households
    FLOW_FUND_INCOME,  # income on traders' inventory, all financial markets
    FLOW_LOANS_NEW,  # all new loans, unpaid interest included
    FLOW_LOANS_REPAID,
    FLOW_INTEREST,  # interest booked, unpaid included
    FLOW_WRITTEN_OFF,
    FLOW_EMPLOYED,  # households settled in labour this tick that sold at least half their hours
    FLOW_UNEMPLOYED,
    FLOW_WAGE_LEVELS,  # sum of w after the step, over those households
    FLOW_NOMINAL,  # household consumption, ucr
    FLOW_REAL,  # household consumption, lots
    FLOW_SHARE_INCOME,  # dividends and coupons households received
    FLOW_OUTSIDE_INCOME,  # dividends and coupons outside agents received
    FLOW_OUTSIDE_LOANS_NEW,  # as above, outside agents
    FLOW_OUTSIDE_REPAID,
    FLOW_OUTSIDE_INTEREST,
    FLOW_OUTSIDE_WRITTEN_OFF,
    FLOW_ADVANCE_PAID,  # endowments paid from the treasury
    FLOW_ADVANCE_BACK,  # cash taken back by the treasury when agents leave
    FLOW_ESTATE_SOLD,  # proceeds of the estate, to the treasury
    FLOW_ESTATE_INCOME,  # dividends of the estate, to the treasury
) = range(24)
FLOWS = 24

# --- goods of a tick, per market: first index of State.goods_flow (int64 lots) -----------------------------------
GOODS_PRODUCED, GOODS_USED, GOODS_CONSUMED, GOODS_SOLD_OUT = range(4)
"""GOODS_PRODUCED includes what outside agents made; GOODS_USED as input; GOODS_CONSUMED by households and agents;
GOODS_SOLD_OUT goods of producers sold in offers."""

# --- moods, per home market: first index of State.mood_sum (int64) -----------------------------------------------
MOOD_SENTIMENT, MOOD_FEAR, MOOD_GREED, MOOD_CONFIDENCE, MOOD_MEMORY, MOOD_DEVIATION, MOOD_SQUARE = range(7)
MOODS = 7
"""Sums of the Q15 values over the residents of a home market; DEVIATION sums |s - 16384|, SQUARE (s - 16384)^2."""

# --- flags that turned in a tick: first index of State.turns (int64): +1 began, -1 ended --------------------------
TURN_PANIC, TURN_EUPHORIA, TURN_VOLATILITY, TURN_TIGHTENING, TURN_EASING = range(5)
TURNS = 5
"""The last two are the whole economy's and stand in column 0."""

NEVER = 1 << 62
"""A tick that never comes."""

LANES = 2
"""Lists that an owner's new orders are spread over by market: one that may cross is found sooner."""

#: Where an owner has open orders; owners may share one. Half a line of the cache: an order of a crowd looks at one.
OWNER_OPEN = np.dtype(
    [
        ("resting", np.uint64),  # bits of the markets with open buys, and MARKETS further up with open sells
        ("new", np.uint64),  # the same of orders of this tick
        ("tick", np.int64),  # new and newest are of orders of that tick; in any other they mean nothing
        ("newest", np.int32, (LANES,)),  # by market mod LANES: row + 1 of the newest new order, 0 = none
    ]
)

#: An outside order of this tick, until settlement. Two share a line of the cache.
NEW_ORDER = np.dtype(
    [
        ("id", np.int64),  # sequence number of the action that placed it
        ("quantity", np.int32),  # lots open
        ("slot", np.int32),  # of the agent
        ("level", np.int32),
        ("row", np.int32),  # of the action in this tick's outcomes
        ("next", np.int32),  # row + 1 of the next older one of this owner's place and lane, 0 = last
        ("market", np.int8),
        ("side", np.int8),  # +1 buy, -1 sell
        ("is_loose", np.int8),  # 1 while nothing is set aside for it
        ("term", np.int8),  # 1 of an order that may stay: new_expires; 0 of one good for this tick; LAPSES
    ]
)


def _array(dtype: Any, *shape: str | int, unit: str, scratch: bool = False) -> Any:
    return field(metadata={"dtype": dtype, "shape": shape, "unit": unit, "scratch": scratch})


LINE, SMALL_PAGE = 64, 4_096
"""Bytes of a line of the cache, and of the smallest page of memory."""

Parallel = Callable[[Callable[[int], None], int], None]
"""run(work, count): calls work(0) .. work(count - 1), in any order or at once, and returns when all are done."""


def serial(work: Callable[[int], None], count: int) -> None:
    """Call work(0) .. work(count - 1) one after another."""
    for i in range(count):
        work(i)


@dataclass(slots=True, kw_only=True)
class State:
    """All arrays of a world. Lengths are words of `sizes`; units: ucr = micro-credit, Q15 = value x 32767."""

    layout: Layout
    tick: int
    """The last tick that was completed; -1 before the first."""
    threads: int
    parallel: Parallel
    sizes: dict[str, int]
    actions: NDArray[np.void]
    """Inputs of this tick, dtype ACTION, in arrival order."""
    outcomes: NDArray[np.void]
    """One per action, dtype OUTCOME."""
    updates: NDArray[np.void]
    """Changes to older outside orders in this tick, dtype ORDER_UPDATE."""
    fired: I64
    """Numbers of the agents whose dead-man's switch cancelled their orders in this tick."""
    events: list[Event]
    """Facts of this tick so far."""

    # residents (ECONOMY A3)
    cash: I64 = _array(np.int64, "residents", unit="ucr, never negative")
    ord_level: I32 = _array(np.int32, "residents", unit="ladder level of the standing order")
    ord_qty: I32 = _array(np.int32, "residents", unit="lots of the standing order, + buy, - sell")
    sentiment: I16 = _array(np.int16, "residents", unit="Q15")
    fear: I16 = _array(np.int16, "residents", unit="Q15")
    greed: I16 = _array(np.int16, "residents", unit="Q15")
    confidence: I16 = _array(np.int16, "residents", unit="Q15")
    memory: I16 = _array(np.int16, "residents", unit="Q15")
    shares: I32 = _array(np.int32, "households", unit="lots of the block's home asset")
    income_ema: I32 = _array(np.int32, "households", unit="1000 ucr a day")
    reserve_wage: I32 = _array(np.int32, "households", unit="ladder level")
    skill: I32 = _array(np.int32, "households", unit="hours offered a day, 3..400, constant")
    employed: I8 = _array(np.int8, "households", unit="0 or 1")
    inventory: I64 = _array(np.int64, "traders", unit="lots")
    debt: I64 = _array(np.int64, "producers", unit="ucr")
    out: I32 = _array(np.int32, "producers", unit="lots of the own good in stock")
    in1: I32 = _array(np.int32, "producers", unit="lots of the first input")
    in2: I32 = _array(np.int32, "producers", unit="lots of the second input")
    hours: I32 = _array(np.int32, "producers", unit="hours of labour")
    day_sales: I32 = _array(np.int32, "producers", unit="lots sold since the last booking")
    ask: I32 = _array(np.int32, "producers", unit="ladder level")
    sales_ema: I32 = _array(np.int32, "producers", unit="lots a day x 16, at least 16")
    sell_level: I32 = _array(np.int32, "producers", unit="ladder level of the standing offer")
    sell_qty: I32 = _array(np.int32, "producers", unit="lots of the standing offer, >= 0")

    # markets
    level: I64 = _array(np.int64, MARKETS, unit="reference level p")
    price: I64 = _array(np.int64, MARKETS, unit="ucr a lot: P[level]")
    returns: I64 = _array(np.int64, HOURS, MARKETS, unit="bp; ring of the last 24 ticks, row tick mod 24")
    halt_until: I64 = _array(np.int64, MARKETS, unit="first tick that clears again; 0 when not halted")
    elasticity: F64 = _array(np.float64, MARKETS, unit="1; EMA 1/20 of 1 / max(2, e_d + e_s)")
    kyle_xy: F64 = _array(np.float64, MARKETS, unit="bp lots; EMA 1/100 of return x imbalance")
    kyle_xx: F64 = _array(np.float64, MARKETS, unit="lots^2; EMA 1/100 of imbalance^2")
    variance: F64 = _array(np.float64, MARKETS, unit="bp^2; EMA 1/50 of return^2")
    daily_volume: F64 = _array(np.float64, MARKETS, unit="lots a day; EMA 1/240, the 15 asset markets")
    outside_flow: F64 = _array(np.float64, MARKETS, unit="daily volumes bought by outside agents, less 1/120 a tick")
    outside_move: F64 = _array(np.float64, MARKETS, unit="bp by which outside flow has moved the price, as reckoned")
    slow_level: F64 = _array(np.float64, MARKETS, unit="level; EMA 1/480 of a good's level (buyers' memory)")
    unit_cost: I64 = _array(np.int64, MARKETS, unit="ucr a lot; goods and resources")
    cost_level: I64 = _array(np.int64, MARKETS, unit="level k of the unit cost")
    hours_q16: I64 = _array(np.int64, MARKETS, unit="hours a lot x 65536: L, scarcity included")
    input1_q16: I64 = _array(np.int64, MARKETS, unit="lots of the first input a lot x 65536: a_1")
    input2_q16: I64 = _array(np.int64, MARKETS, unit="lots of the second input a lot x 65536: a_2")
    base_hours: F64 = _array(np.float64, MARKETS, unit="hours a lot at no scarcity: L_0; constant")
    shares_out: I64 = _array(np.int64, MARKETS, unit="lots of a share or the consol outstanding; constant")
    income_per_lot: I64 = _array(np.int64, MARKETS, unit="ucr a lot and tick; 24..31")
    dividend_ema: F64 = _array(np.float64, MARKETS, unit="ucr a lot and year; EMA 1/4320: D")
    news: F64 = _array(np.float64, MARKETS, unit="bp: nu")
    fundamental: I64 = _array(np.int64, MARKETS, unit="level F")
    base_share_q15: I64 = _array(np.int64, MARKETS, unit="base share e of an asset in household wealth; constant")
    visit_share_q16: I64 = _array(np.int64, MARKETS, unit="share_g of one shopping visit x 65536")
    subsistence: I64 = _array(np.int64, MARKETS, unit="lots a visit: gamma_g; constant")
    output_weight: F64 = _array(np.float64, MARKETS, unit="initial gross output, credits a day: PPI weights; constant")
    trend_fast: I64 = _array(np.int64, MARKETS, unit="bp x 16; EMA 1/8 of the return")
    trend_slow: I64 = _array(np.int64, MARKETS, unit="bp x 16; EMA 1/64 of the return")
    fundamentalists: F64 = _array(np.float64, MARKETS, unit="share n_f in [.05, .97]")
    chartists_q16: I64 = _array(np.int64, MARKETS, unit="n_c x 65536, the traders' strategy bound")
    vm_q8: I64 = _array(np.int64, MARKETS, unit="volatility multiplier x 256")
    sigma_q4: I64 = _array(np.int64, MARKETS, unit="herding-shock size x 16")
    panic_bias: I64 = _array(np.int64, MARKETS, unit="bp off valuations in a panic, 0 else")
    group_draw: I64 = _array(np.int64, MARKETS, GROUPS, unit="normal units of sd 147.8, of the herding groups")
    target_sentiment: I64 = _array(np.int64, MARKETS, unit="0..32700")
    target_fear: I64 = _array(np.int64, MARKETS, unit="0..32700")
    target_greed: I64 = _array(np.int64, MARKETS, unit="0..32700")
    target_confidence: I64 = _array(np.int64, MARKETS, unit="0..32700")
    is_panic: I64 = _array(np.int64, MARKETS, unit="1 while a panic lasts")
    is_euphoria: I64 = _array(np.int64, MARKETS, unit="1 while a euphoria lasts")
    is_volatile: I64 = _array(np.int64, MARKETS, unit="1 while a volatility event lasts")

    # resources 1..7, index market - 1
    reserves: I64 = _array(np.int64, RESOURCES, unit="lots")
    reserves_base: I64 = _array(np.int64, RESOURCES, unit="lots; constant")
    quota: I64 = _array(np.int64, RESOURCES, unit="lots per extractor and day")
    extracted_day: I64 = _array(np.int64, RESOURCES, unit="lots extracted since tick mod 24 = 0")

    # totals of goods since the start (ECONOMY A14.3)
    goods_initial: I64 = _array(np.int64, MARKETS, unit="lots held at the start; hours 0")
    goods_made: I64 = _array(np.int64, MARKETS, unit="lots produced since the start")
    goods_gone: I64 = _array(np.int64, MARKETS, unit="lots consumed or used as input since the start")
    reserves_added: I64 = _array(np.int64, RESOURCES, unit="lots renewed, issued or found since the start")
    reserves_lost: I64 = _array(np.int64, RESOURCES, unit="lots destroyed since the start")
    reserves_initial: I64 = _array(np.int64, RESOURCES, unit="lots at the start; constant")

    # money
    pools: I64 = _array(np.int64, POOLS, unit="ucr; seven sectors, then the fund")
    ledger: I64 = _array(np.int64, 4, unit="ucr; TREASURY BANK CENTRAL_BANK cash, LOANS outstanding")
    macro: F64 = _array(np.float64, MACRO, unit="see the index names")
    counters: I64 = _array(np.int64, COUNTERS, unit="see the index names")
    days: F64 = _array(np.float64, 3, DAYS_KEPT, unit="ring of day means: CPI, M (ucr), V; column day mod 720")

    # outside agents, one slot each; only the first counters[SLOTS_USED] are part of the hash
    agent_id: I64 = _array(np.int64, "agents", unit="0 = free slot")
    agent_owner: I64 = _array(np.int64, "agents", unit="owner number")
    agent_cash: I64 = _array(np.int64, "agents", unit="ucr, free")
    agent_escrow: I64 = _array(np.int64, "agents", unit="ucr, held for open buys")
    agent_debt: I64 = _array(np.int64, "agents", unit="ucr, bank loan")
    agent_advance: I64 = _array(np.int64, "agents", unit="ucr, the interest-free endowment")
    agent_holdings: I64 = _array(np.int64, "agents", MARKETS, unit="lots, reserved ones included")
    agent_reserved: I64 = _array(np.int64, "agents", MARKETS, unit="lots promised by open sells")
    agent_orders: I64 = _array(np.int64, "agents", unit="open orders")
    agent_last_tick: I64 = _array(np.int64, "agents", unit="tick of the last action")
    agent_mood: I64 = _array(np.int64, "agents", 4, unit="Q15: sentiment, fear, greed, confidence")
    agent_has_mood: I64 = _array(np.int64, "agents", unit="1 once set_sentiment was used")
    agent_mood_tick: I64 = _array(np.int64, "agents", unit="tick of the last set_sentiment, -1 if none")
    agent_deadline: I64 = _array(np.int64, "agents", unit="tick at whose start all its orders are cancelled, 0 = never")
    blocked_owner: I64 = _array(np.int64, "agents", unit="owner a slot freed with a write-off still counts for")
    blocked_until: I64 = _array(np.int64, "agents", unit="tick until which it counts")
    estate: I64 = _array(np.int64, MARKETS, unit="lots the treasury holds from agents that left")

    # standing outside orders, oldest first; only the first counters[ORDER_COUNT] are part of the hash
    order_id: I64 = _array(np.int64, "orders", unit="sequence number of the action that placed it, ascending")
    order_slot: I64 = _array(np.int64, "orders", unit="slot of the agent")
    order_market: I64 = _array(np.int64, "orders", unit="market")
    order_side: I64 = _array(np.int64, "orders", unit="+1 buy, -1 sell")
    order_level: I64 = _array(np.int64, "orders", unit="ladder level")
    order_qty: I64 = _array(np.int64, "orders", unit="lots left")
    order_expires: I64 = _array(np.int64, "orders", unit="last tick it takes part in; NEVER = good till cancelled")
    order_since: I64 = _array(np.int64, "orders", unit="first tick it took part in: older ones go first")

    # --- scratch: what phases of one tick tell each other --------------------------------------------------------
    keys: U32 = _array(np.uint32, len(STREAMS), 2, unit="key words of this tick's streams", scratch=True)
    ladder: I64 = _array(np.int64, 0, unit="ucr; the table P", scratch=True)
    histogram: I64 = _array(
        np.int64, "threads", MARKETS, 2, SLOTS, unit="lots; side 0 buy, 1 sell; slot CENTRE = reference", scratch=True
    )
    touched: I64 = _array(
        np.int64, "threads", MARKETS, 2, unit="lowest and highest touched slot; low > high: none", scratch=True
    )
    agent_index: I32 = _array(np.int32, "index", unit="slot + 1 by agent number, 0 = empty", scratch=True)
    owner_index: I32 = _array(np.int32, "index", unit="first slot + 1 by owner number, 0 = empty", scratch=True)
    slot_owner: I64 = _array(np.int64, "agents", unit="owner number a slot is listed under, 0 = none", scratch=True)
    owner_next: I32 = _array(
        np.int32, "agents", unit="next slot + 1 in the ring of an owner, 0 = in none", scratch=True
    )
    owner_open: NDArray[np.void] = _array(OWNER_OPEN, "index", unit="by owner number mod length", scratch=True)
    agent_actions: I64 = _array(
        np.int64, "agents", unit="tick << 20 | actions taken in it; not of a loose order alone", scratch=True
    )
    agent_assets: I64 = _array(np.int64, "agents", unit="lots of shares and consols held", scratch=True)
    agent_first_order: I32 = _array(np.int32, "agents", unit="index + 1 of an open order, 0 = none", scratch=True)
    order_next: I32 = _array(
        np.int32, "orders", unit="index + 1 of the agent's next open order, 0 = last", scratch=True
    )
    new_order: NDArray[np.void] = _array(
        NEW_ORDER, "orders", unit="outside orders of this tick, in arrival order", scratch=True
    )
    new_expires: I64 = _array(np.int64, "orders", unit="last tick of those of them that may stay", scratch=True)
    new_order_count: I64 = _array(np.int64, 2, unit="how many they are; the tick they are of", scratch=True)
    cleared_volume: I64 = _array(np.int64, MARKETS, unit="lots traded in this tick: V", scratch=True)
    margin_level: I64 = _array(
        np.int64, 2, MARKETS, unit="level of the marginal buyers (0) and sellers (1)", scratch=True
    )
    margin_ration: I64 = _array(np.int64, 2, MARKETS, unit="lots R left for them after carried-over ones", scratch=True)
    margin_total: I64 = _array(np.int64, 2, MARKETS, unit="marginal lots Q_m after carried-over ones", scratch=True)
    block_before: I64 = _array(
        np.int64, "blocks", 2, unit="running sum C of marginal lots before a block's first orders", scratch=True
    )
    segment_before: I64 = _array(np.int64, "segments", unit="the same before a segment's offers", scratch=True)
    outside_net: I64 = _array(np.int64, MARKETS, unit="lots outside agents bought less sold, this tick", scratch=True)
    quote_shift: I64 = _array(np.int64, MARKETS, unit="bp on residents' asset orders, for outside flow", scratch=True)
    market_return: I64 = _array(np.int64, MARKETS, unit="bp, this tick", scratch=True)
    imbalance: I64 = _array(np.int64, MARKETS, unit="lots: D - Q at the old reference level", scratch=True)
    best_bid: I64 = _array(np.int64, MARKETS, unit="level of the best unfilled bid, -1 = none", scratch=True)
    best_ask: I64 = _array(np.int64, MARKETS, unit="level of the best unfilled ask, -1 = none", scratch=True)
    depth: I64 = _array(np.int64, 2, MARKETS, unit="unfilled lots within 100 bp of the best", scratch=True)
    book_wanted: I64 = _array(np.int64, MARKETS, unit="levels a side of the unfilled book to note: 0..20", scratch=True)
    book_level: I64 = _array(
        np.int64, 2, MARKETS, BOOK_LEVELS, unit="levels of unfilled bids (0), asks (1), best first", scratch=True
    )
    book_lots: I64 = _array(
        np.int64, 2, MARKETS, BOOK_LEVELS, unit="unfilled lots there, 0 = no more levels", scratch=True
    )
    demand: I64 = _array(np.int64, MARKETS, unit="lots: D at the old reference level", scratch=True)
    supply: I64 = _array(np.int64, MARKETS, unit="lots: Q at the old reference level", scratch=True)
    bids_total: I64 = _array(np.int64, MARKETS, unit="all bids in the window, lots", scratch=True)
    asks_total: I64 = _array(np.int64, MARKETS, unit="all asks in the window, lots", scratch=True)
    indicative: I64 = _array(np.int64, MARKETS, unit="ucr: document 004's equilibrium price", scratch=True)
    elasticity_demand: F64 = _array(np.float64, MARKETS, unit="e_d", scratch=True)
    elasticity_supply: F64 = _array(np.float64, MARKETS, unit="e_s", scratch=True)
    surplus: F64 = _array(np.float64, 2, MARKETS, unit="ucr: consumers', producers'", scratch=True)
    flows: I64 = _array(np.int64, FLOWS, unit="see the index names; sums of this tick", scratch=True)
    goods_flow: I64 = _array(np.int64, 4, MARKETS, unit="lots of this tick; see the index names", scratch=True)
    dividends: I64 = _array(np.int64, MARKETS, unit="ucr paid by a market's producers to their pool", scratch=True)
    mood_sum: I64 = _array(np.int64, MOODS, MARKETS, unit="Q15 sums by home market", scratch=True)
    mood_count: I64 = _array(np.int64, MARKETS, unit="residents by home market; constant", scratch=True)
    mood_mean: F64 = _array(np.float64, 5, MARKETS, unit="means in [0, 1]: first five moods", scratch=True)
    market_herding: F64 = _array(np.float64, MARKETS, unit="herding factor of a market", scratch=True)
    market_extremity: F64 = _array(np.float64, MARKETS, unit="extremity of a market", scratch=True)
    market_vm: F64 = _array(np.float64, MARKETS, unit="volatility multiplier before Q8", scratch=True)
    realised: F64 = _array(np.float64, MARKETS, unit="realised volatility a year, EMA 1/50", scratch=True)
    realised_day: F64 = _array(
        np.float64, MARKETS, unit="realised volatility a year of the last 24 ticks", scratch=True
    )
    scarcity: F64 = _array(np.float64, RESOURCES, unit="1 - reserves / base, in [0, 1]", scratch=True)
    multiplier: F64 = _array(np.float64, RESOURCES, unit="price multiplier", scratch=True)
    turns: I64 = _array(np.int64, TURNS, MARKETS, unit="+1 a flag went up in this tick, -1 down", scratch=True)


def array_fields() -> Iterator[Any]:
    """Yield the dataclass fields that are arrays, in declared order."""
    return (item for item in fields(State) if "dtype" in item.metadata)


def new_state(config: Config, threads: int = 1, parallel: Parallel = serial) -> State:
    """Return a state with every array allocated and zero, before calibration.

    Raises nothing: a Config is valid by construction. threads: ranges the resident kernels are cut into.
    """
    layout = lay_out(config.residents)
    sizes = {
        "residents": layout.residents,
        "households": layout.households,
        "producers": layout.producers,
        "traders": layout.traders,
        "blocks": layout.blocks,
        "segments": len(layout.segment_start),
        "agents": config.max_agents,
        "orders": config.order_book_max,
        "index": table_size(config.max_agents),
        "threads": threads,
    }
    arrays = _zeros(sizes)
    arrays["ladder"] = prices()
    arrays["touched"][...] = SLOTS, -1
    np.add.at(arrays["mood_count"], layout.block_home, layout.block_end - layout.block_start)
    return State(
        layout=layout,
        tick=-1,
        threads=threads,
        parallel=parallel,
        sizes=sizes,
        actions=np.zeros(0, ACTION),
        outcomes=np.zeros(0, OUTCOME),
        updates=np.zeros(0, ORDER_UPDATE),
        fired=np.zeros(0, np.int64),
        events=[],
        **arrays,
    )


def _zeros(sizes: dict[str, int]) -> dict[str, Any]:
    """Return every array of a state, zero, by name: parts of one block of memory.

    A tick reads a thousand small pages, more than the processor remembers the places of. numpy asks for large pages
    for one block of this size, not for arrays one by one (a tick of 100,000 residents and 10,000 outside agents:
    1.26 -> 1.18 ms, with an order of each 2.11 -> 1.91 ms, both worlds by turns in one process, tenth percentiles).
    """
    shapes = {
        item.name: tuple(sizes[d] if isinstance(d, str) else d for d in item.metadata["shape"])
        for item in array_fields()
    }
    types = {item.name: np.dtype(item.metadata["dtype"]) for item in array_fields()}
    starts: dict[str, int] = {}
    end = 0
    for number, (name, shape) in enumerate(shapes.items()):
        # arrays that start alike within a small page would compete for the same few places of the cache when they are
        # read side by side; 5 has no factor in common with the lines of a page
        starts[name] = end + (5 * LINE * number - end) % SMALL_PAGE
        end = starts[name] + math.prod(shape) * types[name].itemsize
    block = np.zeros(end + LINE, np.uint8)
    first = -block.ctypes.data % LINE
    return {name: np.ndarray(shape, types[name], block, first + starts[name]) for name, shape in shapes.items()}


def announce(state: State, name: str, **data: int | float | str | bool) -> None:
    """Add a fact to the events of this tick, in the channel of everything but discoveries and catastrophes."""
    state.counters[OTHER_EVENTS] += 1
    state.events.append(Event(OTHER, int(state.counters[OTHER_EVENTS]), state.tick, name, data))


def persistent(state: State) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield (name, array) of what makes up the world, in hash order; agents and orders only as far as used."""
    limits = {"agents": int(state.counters[SLOTS_USED]), "orders": int(state.counters[ORDER_COUNT])}
    for item in array_fields():
        if not item.metadata["scratch"]:
            array = getattr(state, item.name)
            first = item.metadata["shape"][0]
            yield item.name, array[: limits[first]] if first in limits else array


def state_hash(state: State) -> bytes:
    """Return the 16-byte BLAKE2b digest of the persistent arrays in declared order and the tick number."""
    return hash_arrays(state.tick, persistent(state))


def hash_arrays(tick: int, arrays: Iterator[tuple[str, NDArray[Any]]]) -> bytes:
    """Return the state hash of named arrays: layout version, tick, then each name, size and little-endian bytes."""
    digest = hashlib.blake2b(struct.pack("<qq", LAYOUT_VERSION, tick), digest_size=16)
    for name, array in arrays:
        digest.update(struct.pack(f"<{len(name)}sQ", name.encode(), array.size))
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(np.ascontiguousarray(little).view(np.uint8).reshape(-1).data)
    return digest.digest()
