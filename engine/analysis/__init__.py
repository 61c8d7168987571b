"""Looks at history and state and never changes them: estimators, facts of a recorded history, controls.

statistics.py estimates, recording.py keeps what a world did, facts.py and macro_facts.py judge it by the bands of
ECONOMY B0, controls.py are worlds that must fail. No clock and no files here, as everywhere in the engine.
"""
