"""Scenarios: a world is treated by a script, its identical twin is not, and the difference meets expectations.

Map: script (a scenario and how it is read) -> steps (what a script can do), outside (bots that send orders), series
(what is watched), expectations (what is promised), run (start here: treated world and twin), sensitivity (each
parameter moved up and down), vocabulary (the rules all keys are held to), suite/ (the scenarios of the product).
"""
