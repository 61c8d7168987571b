"""The catalogue of public values: name, unit and meaning of everything a PublicState holds.

Whoever publishes (server) scales from this one list; whoever measures (phases) fills exactly these names.
Source: ECONOMY A11.
"""

from __future__ import annotations

from typing import NamedTuple


class Field(NamedTuple):
    """A public value. unit: ucr, level, bp, lots, share (a fraction), 1 (a pure number), flag, hours, tick, count."""

    name: str
    unit: str
    text: str


MARKET_FIELDS = (
    Field("price", "ucr", "reference price a lot after this tick's auction"),
    Field("level", "level", "its ladder level"),
    Field("return_bp", "bp", "change of the level in this tick"),
    Field("volume", "lots", "lots traded in this tick"),
    Field("value", "ucr", "volume x price"),
    Field("best_bid", "ucr", "best unfilled bid, 0 = none"),
    Field("best_ask", "ucr", "best unfilled ask, 0 = none"),
    Field("spread_bp", "bp", "best ask level - best bid level, -1 when one is missing"),
    Field("bid_depth", "lots", "unfilled bids within 100 bp of the best"),
    Field("ask_depth", "lots", "unfilled asks within 100 bp of the best"),
    Field("imbalance", "lots", "bids minus asks at the old reference level"),
    Field("demand", "lots", "lots bid at or above the old reference level"),
    Field("supply", "lots", "lots asked at or below the old reference level"),
    Field("indicative_price", "ucr", "specification 004's equilibrium price"),
    Field("kyle_lambda", "bp/lot", "price impact of one lot of imbalance"),
    Field("elasticity", "1", "smoothed 1 / (e_d + e_s)"),
    Field("elasticity_demand", "1", "of this tick's demand curve"),
    Field("elasticity_supply", "1", "of this tick's supply curve"),
    Field("consumer_surplus", "ucr", "buyers' surplus of this tick"),
    Field("producer_surplus", "ucr", "sellers' surplus of this tick"),
    Field("volatility", "share", "realised, a year, memory 50 ticks"),
    Field("volatility_day", "share", "realised, a year, over the last 24 ticks"),
    Field("volatility_multiplier", "1", "of the market's own residents"),
    Field("sentiment", "share", "mean of the market's own residents, as the next four"),
    Field("fear", "share", ""),
    Field("greed", "share", ""),
    Field("confidence", "share", ""),
    Field("memory", "share", ""),
    Field("herding", "1", "agreement of the market's own residents"),
    Field("extremity", "share", "min(1, 8 |S - .5|)"),
    Field("fundamentalists", "share", "traders that follow the fundamental value"),
    Field("fundamental_price", "ucr", "price of the fundamental level F"),
    Field("income_per_lot", "ucr", "dividend or coupon a lot and tick"),
    Field("is_halted", "flag", "1 while nothing clears"),
    Field("is_panic", "flag", "1 while a panic lasts"),
    Field("is_euphoria", "flag", "1 while a euphoria lasts"),
)

RESOURCE_FIELDS = (
    Field("reserves", "lots", "left in the ground, or issued"),
    Field("base", "lots", "reserves at no scarcity"),
    Field("scarcity", "share", "1 - reserves / base"),
    Field("multiplier", "1", "1 + scarcity x 3 x importance"),
    Field("quota", "lots", "per extractor and day"),
    Field("extracted_today", "lots", "since the day began"),
    Field("added", "lots", "renewed, issued or found since the start"),
    Field("lost", "lots", "destroyed since the start"),
)

PSYCHOLOGY_FIELDS = (
    Field("sentiment", "share", "mean over residents"),
    Field("fear", "share", "mean over residents"),
    Field("greed", "share", "mean over residents"),
    Field("confidence", "share", "mean over residents"),
    Field("memory", "share", "mean over residents"),
    Field("herding", "1", "|S - .5| / (mean |s - .5| + .02)"),
    Field("extremity", "share", "min(1, 8 |S - .5|)"),
    Field("disagreement", "share", "mean |s - .5|"),
    Field("sentiment_variance", "1", "variance of sentiment over residents"),
    Field("volatility_multiplier", "1", "1 + fear x w_f + greed x w_g + herding x .5 + extremity x w_s"),
    Field("shock", "1", "event shock still felt"),
    Field("panic_markets", "count", "markets in panic"),
    Field("euphoria_markets", "count", "markets in euphoria"),
)

MONETARY_FIELDS = (
    Field("policy_rate", "share", "a year"),
    Field("inflation_quarterly", "share", "CPI, annualised"),
    Field("inflation_yearly", "share", "CPI against a year ago"),
    Field("inflation_trend", "share", "40-day trend, a year"),
    Field("expected_inflation", "share", "a year"),
    Field("inflation_formula", "share", "specification 004's formula: the sum of the next five"),
    Field("term_base", "share", "base rate"),
    Field("term_money", "share", "money supply growth"),
    Field("term_velocity", "share", "velocity change"),
    Field("term_demand", "share", "demand pressure"),
    Field("term_behaviour", "share", "behavioural factors"),
    Field("money_supply", "ucr", "M: residents, outside agents and pools"),
    Field("money_growth", "share", "a year, over 90 days"),
    Field("velocity", "1", "360 x the day's nominal consumption / M"),
    Field("velocity_change", "share", "over 90 days"),
    Field("credit", "ucr", "sum of debts"),
    Field("treasury", "ucr", "ledger account"),
    Field("bank", "ucr", "ledger account"),
    Field("central_bank", "ucr", "ledger account"),
    Field("ledger_sum", "ucr", "sum of all cash accounts: always 0"),
    Field("tightening", "flag", "1 while automatic tightening is on"),
    Field("easing", "flag", "1 while quantitative easing is on"),
    Field("transfer", "ucr", "treasury transfer per household and day"),
    Field("tax_day", "ucr", "taxes a day, smoothed"),
    Field("benefit_day", "ucr", "benefits a day, smoothed"),
)

INDICATOR_FIELDS = (
    Field("cpi", "1", "consumer price index, 1 at the start"),
    Field("ppi", "1", "producer price index, 1 at the start"),
    Field("inflation", "share", "quarterly CPI inflation, annualised"),
    Field("unemployment", "share", "households that sold less than half their hours, 4-day mean"),
    Field("vacancy_rate", "share", "hours demanded but not found"),
    Field("wage", "ucr", "wage reference an hour"),
    Field("consumption_nominal", "ucr", "a day, 10-day mean"),
    Field("consumption_real", "ucr", "a day at base prices, 10-day mean"),
    Field("potential", "ucr", "real consumption a day, 1440-day mean"),
    Field("gap", "share", "real / potential - 1"),
    Field("policy_rate", "share", "a year"),
    Field("money_supply", "ucr", "M"),
    Field("velocity", "1", "a year"),
    Field("equity_index", "1", "100 at the start"),
    Field("volatility", "share", "mean realised volatility a year of the 15 asset markets"),
    Field("sentiment", "share", "global mean"),
    Field("volatility_multiplier", "1", "global"),
    Field("gini", "share", "of wealth, daily"),
    Field("top_share", "share", "wealth of the richest 1 %, daily"),
    Field("agents", "count", "registered outside agents"),
    Field("open_orders", "count", "standing outside orders"),
    Field("day", "count", "whole days since the start"),
)
