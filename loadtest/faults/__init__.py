"""Streams over a network that cuts, delays, splits, drops, repeats and reorders, from a server that is killed.

proxy (between a client and the server) -> referee (what every client saw, held against each other) -> run -> __main__.
"""
