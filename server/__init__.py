"""Everything that touches the outside: HTTP and WebSockets, the journal's file, the clock, settings, logs, metrics.

Map: __main__ (bootstrap, standard library only) -> cli (commands) -> app (builds all parts in flow order, the only
place that constructs). registry names every route once with role and models; routes/ turn a request into one call;
live/ is the path of an action, one file a stage. One door each: config, clock, keys, logs, metrics, errors, protocols.
Invariants: an acknowledged action is on disk; an action belongs to tick n exactly if its record precedes mark n; what
anyone was shown is never contradicted by a recovery; parts get what they need in their constructor.
Absent on purpose: no economics (engine has it), no module globals that parts are found through, no work on import.
"""

__version__ = "0.1.0"
