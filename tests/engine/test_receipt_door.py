"""One action at the door is decided as a column of one is."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.messages import ACTION
from engine.receipt_door import NAME_SIZE, SEQ_WORD, UNTIL_WORD, Door
from engine.receipt_table import Verdict, admit, new_table
from engine.siphash import hash_but_two, hash_names, key_words

SECRET = key_words(bytes(range(16)))
OLDEST = 3


def row(agent: int, quantity: int, until: int) -> bytes:
    """Return an action."""
    made = np.zeros(1, ACTION)
    made["agent_id"], made["quantity"], made["valid_until"] = agent, quantity, until
    return made.tobytes()


_names = st.sampled_from(["a", "b", "a-1", "x" * 8, "x" * NAME_SIZE])
_asks = st.tuples(
    st.integers(1, 2), _names, st.integers(1, 2), st.integers(-1, 9), st.integers(0, 9), st.integers(0, 1)
)


@given(st.lists(_asks, max_size=40))
def test_a_door_answers_as_the_table_does(asks: list[tuple[int, str, int, int, int, int]]) -> None:
    """The same verdict, sequence, key and fingerprint, whatever came before; the table is as full as the other."""
    tables = new_table(4), new_table(4)
    door, next_seq = Door(tables[0], SECRET), 10
    for agent, name, quantity, asked, ends, room in asks:
        given_row = row(agent, quantity, ends)

        answer = door.ask(given_row, name, asked, ends, OLDEST, next_seq, room)

        key, prints = np.empty((1, 2), np.uint64), np.empty((1, 2), np.uint64)
        letters = np.frombuffer(bytearray(name.encode()), np.uint8)[None]
        words = np.frombuffer(bytearray(given_row), np.uint64)[None]
        hash_names(SECRET, np.array([agent]), letters, key)
        hash_but_two(SECRET, words, SEQ_WORD, UNTIL_WORD, np.array([asked]), prints)
        verdicts, seqs = np.zeros(1, np.int32), np.zeros(1, np.int64)
        admit(tables[1], key, prints, np.array([ends]), OLDEST, next_seq, room, verdicts, seqs)
        assert (answer.verdict, answer.seq) == (verdicts[0], seqs[0])
        assert answer[1:5] == (*key[0].tolist(), *prints[0].tolist())
        next_seq += answer.verdict is Verdict.ACCEPTED
    assert tables[0].rows.tobytes() == tables[1].rows.tobytes()
