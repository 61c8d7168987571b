"""Gateways in front of an engine, as real processes, with everything that can go wrong between them done on purpose.

    exchanges    the engine or the gateway is killed at each step of an input's way there and back
    outages      the engine is killed under open sockets: who is still connected, and how soon there is something new
    acks         how long a durable acknowledgement takes through a gateway, and straight to the engine

The clients and the witness are those of the simulation and the kill driver.
"""
