"""What an analysis needs and does not have: said in numbers, so that whoever asked knows how long to wait."""

from __future__ import annotations


class TooFew(ValueError):
    """There are not enough observations. have, need: how many; what: of what."""

    def __init__(self, have: int, need: int, what: str) -> None:
        super().__init__(f"there are {have} of the {need} {what} it takes")
        self.have = have
        self.need = need
        self.what = what


def check_enough(have: int, need: int, what: str) -> None:
    """Raise TooFew when there are fewer than needed."""
    if have < need:
        raise TooFew(have, need, what)
