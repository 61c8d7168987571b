"""The 32 markets, what each is made of, and who owns its profit. Source: ECONOMY A2."""

from __future__ import annotations

LABOUR = 0
RAW_FIRST, RAW_LAST = 1, 7
GOOD_FIRST, GOOD_LAST = 8, 23
SHARE_FIRST, SHARE_LAST = 24, 30
CONSOL = 31
MARKETS = 32
RESOURCES = 7
GOODS = 16
POOLS = 8
"""Seven sector dividend pools in the order of the shares, then the fund pool."""
FUND_POOL = 7
HOURS = 24
"""Ticks in a simulated day."""
YEAR = 8_640
"""Ticks in a simulated year of 360 days."""
MARKUP_BP = 953
"""Levels of an ask over unit cost: a markup of 10 %."""
WAGE_SPREAD_BP = 461
"""Levels between the wage reference and the mean reservation wage."""

NAMES = (
    "labour",
    "oil", "lithium", "rare_earths", "fresh_water", "arable_land", "carbon_credits", "intellectual_property",
    "energy", "food", "housing", "electronics", "transport", "healthcare", "education", "chemicals", "materials",
    "machinery", "clothing", "entertainment", "telecom", "software", "furniture", "vehicles",
    "eq_energy", "eq_agri", "eq_tech", "eq_industry", "eq_property", "eq_services", "eq_finance",
    "consol",
)  # fmt: skip
ID = {name: index for index, name in enumerate(NAMES)}

OIL, LITHIUM, RARE_EARTHS, FRESH_WATER, ARABLE_LAND, CARBON_CREDITS, INTELLECTUAL_PROPERTY = range(1, 8)
FINITE = (OIL, LITHIUM, RARE_EARTHS)
RENEWABLE = (FRESH_WATER, ARABLE_LAND)
ARTIFICIAL = (CARBON_CREDITS, INTELLECTUAL_PROPERTY)
IMPORTANCE = (0.9, 0.8, 0.85, 0.95, 0.7, 0.5, 0.6)
"""Strategic importance of the resources 1..7."""

#: First (20 % of unit value at the start) and second (10 %) input of each produced good.
INPUTS = {
    "energy": ("oil", "carbon_credits"),
    "food": ("fresh_water", "arable_land"),
    "housing": ("materials", "energy"),
    "electronics": ("lithium", "rare_earths"),
    "transport": ("energy", "machinery"),
    "healthcare": ("chemicals", "intellectual_property"),
    "education": ("intellectual_property", "electronics"),
    "chemicals": ("oil", "fresh_water"),
    "materials": ("energy", "carbon_credits"),
    "machinery": ("materials", "electronics"),
    "clothing": ("chemicals", "arable_land"),
    "entertainment": ("intellectual_property", "electronics"),
    "telecom": ("electronics", "energy"),
    "software": ("intellectual_property", "energy"),
    "furniture": ("materials", "arable_land"),
    "vehicles": ("machinery", "lithium"),
}
#: Input markets by market id, -1 where there is none.
INPUT_1 = tuple(ID[INPUTS[n][0]] if n in INPUTS else -1 for n in NAMES)
INPUT_2 = tuple(ID[INPUTS[n][1]] if n in INPUTS else -1 for n in NAMES)

INTERMEDIATE = ("chemicals", "materials", "machinery")
FINAL = tuple(n for n in NAMES[GOOD_FIRST : GOOD_LAST + 1] if n not in INTERMEDIATE)
"""The 13 goods that households buy."""

_SECTORS = {
    "eq_energy": ("energy", "oil"),
    "eq_agri": ("food", "clothing", "furniture", "fresh_water", "arable_land"),
    "eq_tech": ("electronics", "telecom", "software", "intellectual_property"),
    "eq_industry": ("chemicals", "materials", "machinery", "vehicles", "lithium", "rare_earths"),
    "eq_property": ("housing",),
    "eq_services": ("transport", "healthcare", "education", "entertainment", "carbon_credits"),
}
#: Dividend pool (0..6) by producing market, -1 where there is none.
SECTOR = tuple(
    next((ID[share] - SHARE_FIRST for share, members in _SECTORS.items() if n in members), -1) for n in NAMES
)

#: What a household does in each hour of its own day: hour 0 labour, hour 1 its home asset (-1), then shopping.
HOUSEHOLD_DAY = (
    LABOUR,
    -1,
    *(
        ID[n]
        for n in (
            "food", "food", "clothing", "clothing", "software", "energy", "energy", "education", "housing",
            "vehicles", "healthcare", "healthcare", "telecom", "housing", "housing", "electronics", "food",
            "furniture", "transport", "transport", "entertainment", "food",
        )
    ),
)  # fmt: skip
SHOPPING_HOURS = 22
#: Shopping visits a day by market id; divided by 22 the base consumption shares and CPI weights.
VISITS = tuple(HOUSEHOLD_DAY[2:].count(m) for m in range(MARKETS))
