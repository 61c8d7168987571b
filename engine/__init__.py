"""The economy as arithmetic: arrays in, arrays out.

Map: tick (start here) -> phases -> state, config; economy joins them; calibration makes the start; auction, ladder,
order_book, actions are the market; rng, arithmetic the bits; journal, state_bytes, replay the record; invariants the
alarm.
Invariants: the sum of all cash accounts is zero and goods add up after every tick (ECONOMY A14); the world is a pure
function of (config, seed, actions); results do not depend on the number of threads.
Absent on purpose: no clock, no files, no sockets, no asyncio, no hidden random generator, no libm in anything that
shapes the world.
"""
