"""One process, one seed: the whole server under virtual time, over a disk and a network that fail as they please.

    loop      an event loop whose time jumps to the next timer, and threads that run only when it lets them
    disk      a layer under `os` that knows what would survive a power cut, fails on request and takes its time
    network   requests delayed, lost on their way or on the way back, sent twice
    clients   what bots ask, and what they were answered: the witnesses
    referee   what the journal and the published ticks must say after everything that happened
    run       lives of a server one after another, each ended by a crash, a power cut, a failing disk or in order

The same seed gives the same run, callback by callback, on any machine; a seed that finds something is a test for ever.
Nothing here is a stand-in for a part of the server: journal, ticker, admission, routes and recovery are the product's.
"""
