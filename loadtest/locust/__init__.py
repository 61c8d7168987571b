"""Load by locust: bots that act over REST and subscribers that follow the stream, in named profiles.

Map: profiles (how many of which, for how long, and what must hold), locustfile (the users, run by locust in a process
of its own, whose sockets gevent has put in the place of Python's), __main__ (`python -m loadtest.locust PROFILE`: runs
locust headless and holds what it counted to the profile's thresholds).
"""
