"""Real server processes killed at random moments under load, restarted, and asked what they remember.

    kills        kill -9: what was written is in the system's cache and survives
    power cuts   kill -9, and the folder as a disk may have it: what was not synced is lost, in part, out of order
    drains       SIGTERM: everything in flight is answered, exit status 0

The clients are those of the simulation, over real sockets; so are the witness and what is checked in the journal.
"""
