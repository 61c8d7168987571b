"""A peer without any library: what loadtest.peers.serving needs of one."""

from __future__ import annotations

from loadtest.peers.serving import serve


class Quick:
    """A market that trades a lot a step and does nothing else."""

    def __init__(self, agents: int) -> None:
        self.price = 1.0
        self.volume = agents
        self.work = agents

    def step(self) -> None:
        """Count up to the number of agents."""
        sum(range(self.work))


class Slow(Quick):
    """The same with twenty times the work."""

    def __init__(self, agents: int) -> None:
        super().__init__(agents)
        self.work *= 20


if __name__ == "__main__":
    serve({"slow": Slow, "quick": Quick})
