"""Streams are counted by key and by address, here and elsewhere, and by nobody when they have ended."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from server.live.caps import ADDRESS, KEY, NOBODY, Caps, Holder, of_address, of_key
from server.metrics import Metrics

HERE, THERE = of_address("192.0.2.1"), of_key(bytes(range(32)))


def made(per_key: int = 2, per_address: int = 3) -> Caps:
    return Caps(per_key, per_address, Metrics())


def test_an_address_has_so_many_and_a_key_so_many() -> None:
    """Each for itself; who ends one may have another."""
    caps = made()
    for holder, most in ((THERE, 2), (HERE, 3)):
        for _ in range(most):
            assert caps.refusal(holder) is None
            caps.take(holder)
        assert f"{most} are open" in str(caps.refusal(holder))
        caps.give(holder)
        assert caps.refusal(holder) is None
    assert caps.announced() == {"sockets_per_key": 2, "sockets_per_address": 3}


def test_an_address_of_ipv6_is_its_network() -> None:
    """A customer has 2^64 of them; one that is written as IPv6 and is none counts as what it is."""
    assert of_address("2001:db8:0:1::1") == of_address("2001:db8:0:1:ffff::2") != of_address("2001:db8:0:2::1")
    assert of_address("::ffff:192.0.2.1") == of_address("192.0.2.1")
    assert HERE[:1] == ADDRESS
    assert THERE[:1] == KEY


def test_refusals_are_counted_by_limit() -> None:
    """Whoever watches sees which limit is met."""
    metrics = Metrics()
    caps = Caps(1, 1, metrics)
    for holder in (HERE, THERE, THERE):
        caps.take(holder)
        caps.refusal(holder)

    sample = metrics.registry.get_sample_value
    assert [sample("arena_sockets_refused_total", {"limit": name}) for name in ("address", "key")] == [1, 2]


def test_those_of_other_processes_count_too() -> None:
    """As long as they are there."""
    caps = made()
    caps.take(THERE)
    caps.add_elsewhere(THERE, 1)
    assert caps.refusal(THERE) is not None
    assert caps.full() == {THERE: 2}
    caps.add_elsewhere(THERE, -1)
    assert caps.refusal(THERE) is None
    assert caps.full() == {}

    caps.set_elsewhere({HERE: 3})
    assert caps.refusal(HERE) is not None
    caps.set_elsewhere({})
    assert caps.refusal(HERE) is None


def test_the_smaller_of_two_limits_holds() -> None:
    """A gateway has its own, and its engine's."""
    caps = made(per_key=4)
    caps.most_in_all = {KEY: 2, ADDRESS: 9}
    for _ in range(2):
        caps.take(THERE)

    assert caps.refusal(THERE) is not None
    assert caps.announced() == {"sockets_per_key": 2, "sockets_per_address": 3}


def test_who_counts_for_nobody_is_never_too_many() -> None:
    """Where there is no address, as in a test of the hub alone."""
    caps = made(1, 1)
    for _ in range(5):
        caps.take(NOBODY)

    assert caps.refusal(NOBODY) is None
    assert caps.holders() == []


STEPS = st.lists(st.tuples(st.sampled_from([HERE, THERE, of_address("::1")]), st.integers(0, 3)), max_size=60)


@given(STEPS)
def test_what_is_full_is_who_has_as_many_as_may_be(steps: list[tuple[Holder, int]]) -> None:
    """After any openings and endings, and the number of the version tells of every change of the answer."""
    caps, here, there = made(), Counter[Holder](), Counter[Holder]()
    for holder, what in steps:
        before, version = caps.full(), caps.full_version
        if what == 0:
            caps.take(holder)
            here[holder] += 1
        elif what == 1 and here[holder]:
            caps.give(holder)
            here[holder] -= 1
        elif what == 2:
            caps.add_elsewhere(holder, 1)
            there[holder] += 1
        elif what == 3 and there[holder]:
            caps.add_elsewhere(holder, -1)
            there[holder] -= 1

        total = here + there
        assert caps.full() == {one: count for one, count in total.items() if count >= (2 if one == THERE else 3)}
        assert caps.full() == before or caps.full_version != version
        assert sorted(caps.holders()) == sorted(+here)
        assert all((caps._is_full(one)) == (total[one] >= (2 if one == THERE else 3)) for one in total)
