"""A gateway: a process that serves streams and reads of a world that ticks elsewhere, and hands inputs on to it.

    app         builds the parts and runs them
    feed        keeps a hub in step with the engine's: from Redis, and from the engine where Redis falls short
    upstream    connections to the engine; knows of each request whether anything of it was sent
    forward     a client's request to the engine and back, with the status that is true
    desk        actions of connections: to the engine, and its answer back
    owners      whose agents a connection speaks for
    sockets     how many connections there are in all processes
    reads       answers of the state: from memory, from Redis, from the engine, and old ones while it is away

Nothing of the world is decided here, nothing is journaled, and no input waits for an engine that is away.
"""
