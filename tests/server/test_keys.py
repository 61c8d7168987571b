"""API keys and random names: enough entropy, one digest, a comparison that tells nothing."""

from __future__ import annotations

import hashlib

from server import keys


def test_keys_are_prefixed_long_and_never_the_same() -> None:
    """256 random bits as base64url behind a prefix one can search for."""
    made = {keys.mint() for _ in range(100)}

    assert len(made) == 100
    assert all(key.startswith("ak_") and len(key) == keys.KEY_LENGTH for key in made)
    assert all(set(key[3:]) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") for key in made)


def test_what_is_kept_of_a_key_is_its_sha256() -> None:
    """The digest is the documented one, so that keys outlive a release."""
    assert keys.digest("ak_x") == hashlib.sha256(b"ak_x").digest()


def test_a_key_that_cannot_be_encoded_has_a_digest_of_its_own() -> None:
    """Half a surrogate pair in a header must lead to 401, not to a failure."""
    assert keys.digest("ak_\ud800") != keys.digest("ak_?")


def test_digests_are_compared_by_value() -> None:
    """same() is equality."""
    assert keys.same(b"a" * 32, b"a" * 32)
    assert not keys.same(b"a" * 32, b"a" * 31 + b"b")


def test_seeds_epochs_and_request_ids_have_their_sizes() -> None:
    """256 bits of seed, 64 bits for a name, each time others."""
    assert len(keys.world_seed()) == 32
    assert keys.world_seed() != keys.world_seed()
    assert len(keys.epoch()) == len(keys.request_id()) == 16
    assert int(keys.epoch(), 16) >= 0
