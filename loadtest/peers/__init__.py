"""The same small market in other libraries, each in its best idiom, for `arena bench vs_mesa vs_mesa_frames`.

One good, one order of one lot per agent and step, a call auction that sorts bids and asks, three moods per agent that
drift toward the market's last return. The world they are compared with does far more: 32 markets, production, wages,
credit, five moods. Each program runs in an environment of its own (requirements.lock), reads numbers of steps from
standard input and answers each with the time they took.
"""
