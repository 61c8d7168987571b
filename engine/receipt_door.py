"""One action at the door in one call: its name and its content are hashed, then it is recognised or kept.

For a single action calls and the arrays for them cost more than what is done: one call, and one block of numbers that
is filled again and again, take 2 us instead of 26. Where older receipts are on disk, the caller asks twice: it looks
there before it keeps one. Source: DESIGN D2, D23, R2.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Any, NamedTuple

import numpy as np

from engine.kernels import short_kernel
from engine.messages import ACTION
from engine.receipt_table import Ints, Rows, Slots, Table, Verdict, Words, admit
from engine.siphash import hash_but_two, hash_names

NAME_SIZE = 64
"""Most bytes of a client_action_id."""
_FIELDS: Mapping[str, Any] = ACTION.fields or {}
SEQ_WORD, UNTIL_WORD = (_FIELDS[name][1] // 8 for name in ("seq", "valid_until"))
"""The words of an action's row that its fingerprint does not hold."""

_AGENT_WORD = _FIELDS["agent_id"][1] // 8
_ROW_WORDS = ACTION.itemsize // 8
_QUESTION = Struct(f"<5q{NAME_SIZE}s{ACTION.itemsize}s")
"""asked, ends, oldest, next sequence, room, then the name filled up with zeros and the row."""
_NAME = 5
_ROW = _NAME + NAME_SIZE // 8
_ANSWER = Struct("<q4Qq")
"""verdict, key, fingerprint, sequence; they are behind the question."""
_VERDICT = _ROW + _ROW_WORDS
_KEY, _PRINT, _SEQ = _VERDICT + 1, _VERDICT + 3, _VERDICT + 5
_ASKED = int(Verdict.ASKED)


class Answer(NamedTuple):
    """What becomes of an action. verdict: Verdict; seq: of an accepted, known or taken id, else 0.

    high, low, print_high, print_low: the words of its key and of its fingerprint.
    """

    verdict: int
    high: int
    low: int
    print_high: int
    print_low: int
    seq: int


class Door:
    """Asks a table about one action at a time. secret: of the hashes, as engine.siphash.key_words gives it."""

    def __init__(self, table: Table, secret: Words) -> None:
        self._table = table
        self._secret = secret
        self._words = np.zeros(_SEQ + 1, np.uint64)
        self._bytes = self._words.view(np.uint8).data

    def ask(self, row: bytes, name: str, asked: int, ends: int, oldest: int, next_seq: int, room: int) -> Answer:
        """Decide on an action, and keep a receipt when it is accepted, as `admit` does.

        row: dtype ACTION. name: ASCII, 1 to NAME_SIZE characters. asked: its valid_until_tick as it was asked for, -1
        where it was not; ends: the last tick of its validity.
        """
        _QUESTION.pack_into(self._bytes, 0, asked, ends, oldest, next_seq, room, name.encode(), row)
        # its arrays one by one: taking them as a tuple with names costs the compiled call as much as all the rest
        _ask(*self._table, self._secret, self._words)
        return Answer._make(_ANSWER.unpack_from(self._bytes, 8 * _VERDICT))


@short_kernel
def _ask(
    rows: Rows, by_key: Slots, by_seq: Slots, free: Slots, settled: Slots, counters: Ints, secret: Words, words: Words
) -> None:
    """Answer a question: words holds both of them."""
    numbers = words.view(np.int64)
    name = words[_NAME:_ROW].view(np.uint8).reshape(1, NAME_SIZE)
    row = words[_ROW:_VERDICT].reshape(1, _ROW_WORDS)
    key, print_ = words[_KEY:_PRINT].reshape(1, 2), words[_PRINT:_SEQ].reshape(1, 2)
    hash_names(secret, numbers[_ROW + _AGENT_WORD : _ROW + _AGENT_WORD + 1], name, key)
    hash_but_two(secret, row, SEQ_WORD, UNTIL_WORD, numbers[0:1], print_)
    numbers[_VERDICT], numbers[_SEQ] = _ASKED, 0
    # little-endian: the low half of the word is its first
    verdict = words[_VERDICT:_KEY].view(np.int32)[:1]
    table = Table(rows, by_key, by_seq, free, settled, counters)
    admit(table, key, print_, numbers[1:2], numbers[2], numbers[3], numbers[4], verdict, numbers[_SEQ : _SEQ + 1])
