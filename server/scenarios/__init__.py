"""`arena scenario`: files in, tables out. The engine runs and measures; here is everything around it.

Map: command (start here) -> suite (where scenarios are read from), progress, tables (for people), kept (for machines),
reference (every key a file may have).
"""
