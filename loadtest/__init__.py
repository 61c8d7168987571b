"""Customers of a running server: subscribers, bots, whole sessions, and what they measure.

Map: process (a server of our own, started and stopped), swarm (many subscribers), bots (orders at a rate), session
(the acceptance session: bots, mirrors, then a replay), locust/ (profiles of users, with thresholds), stress (more than
there is room for), leak (who leaves leaves nothing), micro/ (one number each), results/ (what was measured).
Nothing here imports the server or the engine: what a customer cannot see, a customer cannot measure.
"""
