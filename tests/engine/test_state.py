"""The arrays of a state as a new one makes them."""

from itertools import pairwise

import numpy as np

from engine.state import LINE, array_fields, new_state
from tests.support.worlds import small_config


def test_arrays_are_parts_of_one_block_that_do_not_overlap() -> None:
    """Every array is zero or set, lies in the same memory as the others, begins a cache line and meets no other."""
    state = new_state(small_config())

    arrays = {item.name: getattr(state, item.name) for item in array_fields()}
    blocks = {id(array.base) for name, array in arrays.items() if name != "ladder"}
    ends = sorted((a.ctypes.data, a.ctypes.data + a.nbytes) for a in arrays.values() if a.nbytes)
    assert len(blocks) == 1
    assert all(array.ctypes.data % LINE == 0 for name, array in arrays.items() if name != "ladder")
    assert all(end <= start for (_, end), (start, _) in pairwise(ends))


def test_arrays_are_those_declared() -> None:
    """Each has its type and number of dimensions, and an agent's rows are as many as the config allows."""
    config = small_config()
    state = new_state(config)

    for item in array_fields():
        array = getattr(state, item.name)
        assert array.dtype == np.dtype(item.metadata["dtype"]), item.name
        assert array.ndim == len(item.metadata["shape"]), item.name
    assert len(state.agent_cash) == config.max_agents
    assert len(state.new_order) == config.order_book_max
