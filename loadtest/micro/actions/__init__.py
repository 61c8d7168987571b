"""Servers that take one action at a time, ours and others, and the client that asks them: see bench_actions."""
