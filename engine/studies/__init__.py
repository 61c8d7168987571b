"""Experiments on the engine: each folder is one kind, and none imports another.

A study takes plain values, has no clock and opens no file, as everything in the engine; who runs it reads and writes.
"""
