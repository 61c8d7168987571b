"""Make the golden vectors of the stream protocol in tests/vectors: `python -m tests.support.make_vectors`.

They bind every implementation in every language, so they change only when the protocol does. The cases are written
out here; nothing is random. `vectors()` returns the files without writing them, for the test that compares.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.support.naive_delta import naive_pack

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests" / "vectors"
EPOCH = "0123456789abcdef"

#: States with everything that has a rule: key order, every width of integer, empty lists, scalars, UTF-8 names.
STATES: dict[str, dict[str, Any]] = {
    "empty": {},
    "one_scalar": {"tick_count": 7},
    "keys_sorted_by_utf8": {"b": 1, "a": 2, "B": 3, "aa": 4, "ä": 5, "€": 6, "": 7, "_": 8, "\U0001f33e": 9},
    "integer_widths": {
        "positive": [0, 1, 127, 128, 255, 256, 65535, 65536, 4294967295, 4294967296, 9007199254740991],
        "negative": [-1, -32, -33, -128, -129, -32768, -32769, -2147483648, -2147483649, -9007199254740991],
    },
    "list_lengths": {"none": [], "fifteen": list(range(15)), "sixteen": list(range(16)), "thirty_two": [1] * 32},
    "sixteen_fields": {f"f{i:02}": i for i in range(16)},
    "market_like": {
        "price": [1_000_000 + 37 * i for i in range(32)],
        "volume": [0] * 32,
        "return_bp": [(-1) ** i * i for i in range(32)],
    },
    "macro_like": {"cpi": 1_002_345, "inflation": -12_345, "policy_rate": 50_000, "money_supply": 8_300_000_000},
}

#: name -> (before, after). The delta is what the encoder makes of the two.
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({"a": 1, "v": [1, 2, 3]}, {"a": 1, "v": [1, 2, 3]}),
    "scalar": ({"a": 1, "b": -5}, {"a": 2, "b": -5}),
    "one_entry_of_a_list": ({"v": [10] * 32}, {"v": [10] * 31 + [9]}),
    "every_entry_of_a_list": ({"v": list(range(32))}, {"v": [i + 1 for i in range(32)]}),
    "far_values_near_zero": ({"v": [5_000_000_000] * 7}, {"v": [0] * 7}),
    "nothing_of_a_list_alone": ({"v": [1, 2, 3]}, {"v": [1, 2, 3]}),
    "every_width": ({"v": [0] * 53}, {"v": [(-1) ** i * (1 << i) for i in range(53)]}),
    "all_one_width": ({"v": [7] * 9}, {"v": [7 + i % 2 * -4 for i in range(9)]}),
    "an_empty_list": ({"a": 1, "v": []}, {"a": 2, "v": []}),
    "as_far_as_an_integer": ({"v": [0, 5]}, {"v": [9007199254740991, 5]}),
    "several": (
        {"a": 1, "b": 2, "v": [0] * 32, "w": list(range(32))},
        {"a": 1, "b": 3, "v": [0, 5] + [0] * 29 + [-5], "w": [2 * i for i in range(32)]},
    ),
}

#: Deltas with their differences by name, as JSON has them.
DELTAS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "a_scalar": ({"a": 1}, {"diff": {"a": -2}}, {"a": -1}),
    "a_list": ({"v": [1, 2, 3]}, {"diff": {"v": [2, 0, -2]}}, {"v": [3, 2, 1]}),
    "a_list_of_zeros": ({"v": [1, 2, 3]}, {"diff": {"v": [0, 0, 0]}}, {"v": [1, 2, 3]}),
    "several_fields": (
        {"a": 1, "v": [1, 2], "w": [3, 4]},
        {"diff": {"a": 8, "w": [-3, -4]}},
        {"a": 9, "v": [1, 2], "w": [0, 0]},
    ),
    "other_keys_are_not_looked_at": ({"a": 1}, {"type": "delta", "seq": 5, "diff": {"a": 1}}, {"a": 2}),
    "empty": ({"a": 1, "v": [1]}, {"diff": {}}, {"a": 1, "v": [1]}),
}

#: Deltas that must be refused, and leave the state as it was.
REFUSED_DELTAS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "unknown_field": ({"a": 1}, {"diff": {"b": 1}}),
    "a_number_to_a_list": ({"v": [1, 2]}, {"diff": {"v": 1}}),
    "a_list_to_a_number": ({"a": 1}, {"diff": {"a": [1]}}),
    "list_too_short": ({"v": [1, 2]}, {"diff": {"v": [1]}}),
    "list_too_long": ({"v": [1, 2]}, {"diff": {"v": [1, 1, 1]}}),
    "a_fraction": ({"a": 1}, {"diff": {"a": 1.5}}),
    "true": ({"a": 1}, {"diff": {"a": True}}),
    "text": ({"a": 1}, {"diff": {"a": "1"}}),
    "nil": ({"a": 1}, {"diff": {"a": None}}),
    "a_list_with_a_fraction": ({"v": [1, 2]}, {"diff": {"v": [1, 0.5]}}),
    "result_of_2_to_53": ({"v": [9007199254740991]}, {"diff": {"v": [1]}}),
    "result_of_minus_2_to_53": ({"a": -9007199254740991}, {"diff": {"a": -1}}),
    "no_diff": ({"a": 1}, {"type": "delta"}),
    "diff_is_no_map": ({"a": 1}, {"diff": [["a", 1]]}),
}

#: Packed differences, also such as the encoder would not choose: name -> (before, hexadecimal, after).
PACKED: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "nothing": ({"a": 1, "v": [1, 2, 3]}, "ffff", {"a": 1, "v": [1, 2, 3]}),
    "singles_are_one_block": ({"b": 1, "a": 2, "v": [5]}, "03 03 00 2b ff", {"b": 2, "a": 1, "v": [5]}),
    "a_width_of_none": ({"v": [1, 2, 3]}, "00 02 05 08", {"v": [-1, 2, 3]}),
    "the_wider_one_first": ({"v": [1, 2, 3]}, "03 00 06 06", {"v": [3, 2, 3]}),
    "zeros_written_out": ({"v": [1, 2, 3]}, "01 01 00 07", {"v": [1, 2, 3]}),
    "a_link_to_one": (
        {"u": [1, 1], "v": [5, 5]}, "04 04 00 9a fe 00 ff ff", {"u": [3, 2], "v": [7, 6]}
    ),
    "links_ahead_to_two": (
        {"u": [0, 0], "v": [5, 5], "w": [9, 9]},
        "fe 01 02 02 02 00 06 04 04 00 9a 04 04 00 88",
        {"u": [2, 0], "v": [7, 6], "w": [9, 9]},
    ),
}  # fmt: skip

#: Packed differences that must be refused, and leave the state as it was.
REFUSED_PACKED: dict[str, tuple[dict[str, Any], str]] = {
    "no_bytes": ({"a": 1}, ""),
    "a_block_is_missing": ({"a": 1, "v": [1]}, "ff"),
    "a_block_too_many": ({"a": 1}, "ffff"),
    "no_second_width": ({"v": [1, 2]}, "03"),
    "no_flags": ({"v": [1, 2]}, "0303"),
    "values_are_cut": ({"v": [1, 2]}, "09 09 00 ff ff"),
    "a_byte_too_many": ({"v": [1, 2]}, "03 03 00 2b 00"),
    "filled_with_ones": ({"v": [1, 2]}, "03 03 00 eb"),
    "flags_filled_with_ones": ({"v": [1, 2]}, "03 03 04 2b"),
    "width_of_55": ({"v": [1]}, "37 37 00 00 00 00 00 00 00 00"),
    "second_width_of_55": ({"v": [1]}, "00 37 00"),
    "link_is_cut": ({"v": [1]}, "fe 00"),
    "link_to_a_block_that_is_not_there": ({"v": [1]}, "fe 01 ff ff"),
    "link_to_a_linked_block": ({"v": [1], "w": [1]}, "fe 01 ff ff fe 00 ff ff"),
    "link_to_another_length": ({"v": [1], "w": [1, 2]}, "fe 01 ff ff ff"),
    "link_of_a_link": ({"v": [1], "w": [1]}, "fe 01 ff fe 01 ff ff ff"),
    "result_of_2_to_53": ({"v": [9007199254740991]}, "02 02 00 03"),
}

_DATA = {"channel": "inflation_update", "epoch": EPOCH}
#: A conversation in order: a client that feeds the data frames to its copy ends with FINAL_STATE.
FRAMES: dict[str, dict[str, Any]] = {
    "01_hello": {
        "type": "hello",
        "version": 2,
        "epoch": EPOCH,
        "tick": 18,
        "tick_rate_ms": 100,
        "heartbeat_s": 15.0,
        "origin_unix_ms": 1_700_000_000_000,
        "markets": ["labour", "oil", "food"],
        "resources": ["oil"],
        "channels": [
            {
                "name": "inflation_update",
                "kind": "state",
                "schema": "00112233445566aa",
                "fields": {"cpi": [1000000, 0, "1"], "rate": [1000000, 0, "share"], "parts": [1, 3, "credits"]},
            }
        ],
        "limits": {"client_frame_bytes": 4096, "control_per_s": 10},
    },
    "02_subscribe": {"op": "subscribe", "id": 1, "channel": "inflation_update"},
    "03_ack": {"type": "ack", "op": "subscribe", "id": 1, **_DATA, "seq": 18, "resumed": False},
    "04_snapshot": {
        "type": "snapshot",
        **_DATA,
        "seq": 18,
        "base": None,
        "tick": 18,
        "sent_ns": 1_800_000_000,
        "reason": "subscribed",
        "state": {"cpi": 1_000_000, "rate": 50_000, "parts": [100, -200, 300]},
        "crc": 0,
    },
    "05_delta": {
        "type": "delta",
        **_DATA,
        "seq": 19,
        "base": 18,
        "tick": 19,
        "sent_ns": 1_900_000_000,
        "diff": {"cpi": 120, "parts": [0, 250, 0]},
    },
    "06_delta_with_crc": {
        "type": "delta",
        **_DATA,
        "seq": 20,
        "base": 19,
        "tick": 20,
        "sent_ns": 2_000_000_000,
        "diff": {"rate": 1_000, "parts": [-100, -50, 7]},
        "crc": 0,
    },
    "07_delta_without_a_change": {
        "type": "delta",
        **_DATA,
        "seq": 21,
        "base": 20,
        "tick": 21,
        "sent_ns": 2_100_000_000,
        "diff": {},
    },
    "08_heartbeat": {"type": "heartbeat", "tick": 21, "sent_ns": 17_100_000_000},
    "09_error": {
        "type": "error",
        "op": "subscribe",
        "id": "x",
        "code": 154,
        "title": "unknown channel",
        "detail": "channel is 'weather'",
        "allowed": ["market_tick", "inflation_update"],
        "temporary": False,
    },
    "10_event": {
        "type": "event",
        "channel": "discovery_event",
        "epoch": EPOCH,
        "seq": 4,
        "base": 3,
        "tick": 33,
        "sent_ns": 3_300_000_000,
        "event": {"name": "resource_discovered", "resource": "oil", "size": 31_250, "quantity": 12_345},
    },
    "11_lagged": {"type": "lagged", "channel": "market_tick", "skipped": 65},
    "12_shutdown": {"type": "shutdown", "retry_after_ms": 1_250},
}
FINAL_STATE = {"cpi": 1_000_120, "rate": 51_000, "parts": [0, 0, 307]}
_STATE_AT: dict[str, dict[str, Any]] = {
    "04_snapshot": {"cpi": 1_000_000, "rate": 50_000, "parts": [100, -200, 300]},
    "05_delta": {"cpi": 1_000_120, "rate": 50_000, "parts": [100, 50, 300]},
    "06_delta_with_crc": FINAL_STATE,
    "07_delta_without_a_change": FINAL_STATE,
}

#: market_tick narrowed to two markets with a level of their books, of a channel with three fields: what a client takes.
NARROWED_ACK = {
    "type": "ack",
    "op": "subscribe",
    "id": 2,
    "channel": "market_tick",
    "epoch": EPOCH,
    "seq": None,
    "resumed": False,
    "every": 5,
    "markets": ["oil", "food"],
    "fields": ["price", "level", "volume"],
    "depth": 1,
}
NARROWED: dict[int, dict[str, Any]] = {
    40: {
        "food": [1_000_000, 46_053, 120],
        "food.asks": [1_000_200, 4],
        "food.bids": [999_900, 17],
        "oil": [20_000_000, 76_013, 0],
        "oil.asks": [0, 0],
        "oil.bids": [19_998_000, 1],
    },
    45: {
        "food": [1_000_100, 46_054, 90],
        "food.asks": [1_000_200, 9],
        "food.bids": [999_900, 17],
        "oil": [20_000_000, 76_013, 0],
        "oil.asks": [20_010_000, 3],
        "oil.bids": [19_998_000, 1],
    },
    50: {
        "food": [1_000_100, 46_054, 0],
        "food.asks": [0, 0],
        "food.bids": [0, 0],
        "oil": [20_002_000, 76_014, 5],
        "oil.asks": [20_010_000, 3],
        "oil.bids": [19_998_000, 1],
    },
}


def _private(seq: int, base: int, *entries: dict[str, Any], balances: list[dict[str, Any]] | None = None) -> Any:
    frame = {
        "type": "entries",
        "channel": "agent",
        "epoch": EPOCH,
        "seq": seq,
        "base": base,
        "tick": seq >> 12,
        "sent_ns": 0,
        "entries": list(entries),
    }
    return frame | ({"balances": balances} if balances else {})


_FILLED = {
    "status": "filled",
    "code": 0,
    "order_id": "4711",
    "filled": 5,
    "open": 0,
    "price": "1.249990",
    "value": "-6.249950",
}
#: Frames of the private channel for a client that stands at PRIVATE_START, with what becomes of each, and where it
#: stands afterwards.
PRIVATE_START = 20 << 12 | 4_095
PRIVATE: list[tuple[dict[str, Any], str, int]] = [
    (
        _private(
            22 << 12,
            18 << 12,
            {"entry": "switch", "agent_id": "a17"},
            {
                "entry": "outcome",
                "agent_id": "a17",
                "client_action_id": "a-1",
                "seq": 4711,
                "type": "limit",
                "outcome": _FILLED,
            },
            balances=[
                {
                    "agent_id": "a17",
                    "tick": 22,
                    "cash": "993.750050",
                    "escrow": "0.000000",
                    "debt": "0.000000",
                    "advance": "1000.000000",
                    "holdings": {"food": {"quantity": 5, "reserved": 0}},
                }
            ],
        ),
        "taken",
        22 << 12,
    ),
    (_private(22 << 12, 18 << 12), "passed over", 22 << 12),
    (_private(22 << 12 | 1, 22 << 12, {"entry": "left", "agent_id": "a9", "reason": "expired"}), "taken", 22 << 12 | 1),
    (_private(122 << 12 | 4_095, 22 << 12 | 1), "taken", 122 << 12 | 4_095),
    (_private(130 << 12, 125 << 12), "gap", 122 << 12 | 4_095),
]

#: Payloads of a binary frame that must be refused, as hexadecimal.
MALFORMED_MSGPACK = {
    "empty": "",
    "cut_map": "81a161",
    "cut_string": "81a5616263",
    "trailing_byte": "80c0",
    "two_messages": "8080",
    "never_used_byte": "c1",
    "array_of_another_length": "9101",
    "delta_without_differences": "95 00 12 01 00 c0",
    "delta_of_another_channel": "95 04 12 01 00 c4 01 ff",
    "delta_with_a_fraction": "95 00 cb3ff8000000000000 01 00 c4 01 ff",
    "delta_with_a_negative_number": "95 00 12 ff 00 c4 01 ff",
    "delta_with_text": "95 00 a1 31 01 00 c4 01 ff",
    "delta_with_two_checksums": "97 00 12 01 00 c4 01 ff 00 00",
    "integer_instead_of_map": "01",
    "duplicate_key": "82a16101a16102",
    "integer_key": "810102",
    "nil_key": "81c001",
    "binary_key": "81c4016101",
    "binary_value": "81a161c40161",
    "extension": "81a161d40100",
    "timestamp": "81a161d6ff00000000",
    "invalid_utf8": "81a161a1ff",
    "not_a_number": "81a161cb7ff8000000000000",
    "infinity": "81a161cb7ff0000000000000",
    "integer_2_to_53": "81a161cf0020000000000000",
    "integer_minus_2_to_53": "81a161d3ffe0000000000000",
    "integer_2_to_64_minus_1": "81a161cfffffffffffffffff",
    "integer_too_large_in_a_list": "81a1619201cf0020000000000000",
    "nested_9_deep": "81a161" + "91" * 8 + "00",
    "nested_1000_deep": "81a161" + "91" * 1000 + "00",
    "list_longer_than_the_message": "81a161ddffffffff",
}
#: Payloads of a text frame that must be refused.
MALFORMED_JSON = {
    "empty": "",
    "cut": '{"a":1',
    "trailing_text": '{"a":1}x',
    "two_messages": "{}{}",
    "array_instead_of_map": "[1]",
    "number_instead_of_map": "1",
    "duplicate_key": '{"a":1,"a":2}',
    "not_a_number": '{"a":NaN}',
    "infinity": '{"a":Infinity}',
    "minus_infinity": '{"a":-Infinity}',
    "float_too_large": '{"a":1e400}',
    "integer_2_to_53": '{"a":9007199254740992}',
    "integer_2_to_64": '{"a":18446744073709551616}',
    "integer_of_5000_digits": '{"a":' + "9" * 5000 + "}",
    "nested_9_deep": '{"a":' + "[" * 8 + "]" * 8 + "}",
    "nested_10000_deep": '{"a":' + "[" * 10_000 + "]" * 10_000 + "}",
    "lone_surrogate": '{"a":"\\ud800"}',
    "single_quotes": "{'a':1}",
    "comment": '{"a":1}//',
}


def vectors() -> dict[str, bytes]:
    """Return file name -> content of all vectors."""
    from arena_client import wire

    frames = {name: dict(frame) for name, frame in FRAMES.items()}
    packed_frames, before = {}, dict[str, Any]()
    for name, state in _STATE_AT.items():
        if "crc" in frames[name]:
            frames[name]["crc"] = wire.checksum(state)
        if frames[name]["type"] == "delta":
            packed_frames[name] = frames[name] | {"diff": naive_pack(before, state)}
        before = state
    files = {
        "states.json": _json(
            {
                name: {"state": state, "canonical": wire.canonical(state).hex(), "crc": wire.checksum(state)}
                for name, state in STATES.items()
            }
        ),
        "deltas.json": _json(
            {
                "encoded": {
                    name: {
                        "before": before,
                        "after": after,
                        "delta": wire.diff(before, after),
                        "packed": naive_pack(before, after).hex(),
                    }
                    for name, (before, after) in CHANGES.items()
                },
                "decoded": {
                    name: {"before": before, "delta": delta, "after": after}
                    for name, (before, delta, after) in DELTAS.items()
                },
                "refused": {
                    name: {"before": before, "delta": delta} for name, (before, delta) in REFUSED_DELTAS.items()
                },
                "decoded_packed": {
                    name: {"before": before, "packed": bytes.fromhex(packed).hex(), "after": after}
                    for name, (before, packed, after) in PACKED.items()
                },
                "refused_packed": {
                    name: {"before": before, "packed": bytes.fromhex(packed).hex()}
                    for name, (before, packed) in REFUSED_PACKED.items()
                },
            }
        ),
        "frames.json": _json({"messages": frames, "final_state": FINAL_STATE}),
        "malformed.json": _json({wire.SUBPROTOCOL_MSGPACK: MALFORMED_MSGPACK, wire.SUBPROTOCOL_JSON: MALFORMED_JSON}),
    }
    files["narrowed.json"] = _json(_narrowed())
    files["private.json"] = _json(
        {
            "start": PRIVATE_START,
            "frames": [
                {"frame": frame, "msgpack": _packed(frame).hex(), "verdict": verdict, "stands_at": seq}
                for frame, verdict, seq in PRIVATE
            ],
        }
    )
    for name, frame in frames.items():
        packed = wire.encode(packed_frames.get(name, frame), wire.SUBPROTOCOL_MSGPACK)
        files[f"frames/{name}.msgpack"] = packed if isinstance(packed, bytes) else packed.encode()
    return files


def _narrowed() -> dict[str, Any]:
    """Return the narrowed conversation: ack, frames in both encodings, the state after each."""
    from arena_client import wire

    rows, before = [], None
    for tick, state in NARROWED.items():
        head = {"channel": "market_tick", "epoch": EPOCH, "seq": tick, "base": before, "tick": tick, "sent_ns": 0}
        crc = wire.checksum(state)
        if before is None:
            frame = {"type": "snapshot", **head, "reason": "subscribed", "state": state, "crc": crc}
        else:
            frame = {"type": "delta", **head, **wire.diff(NARROWED[before], state)}
            if tick % wire.CRC_EVERY == 0:
                frame["crc"] = crc
        packed = {} if before is None else {"diff": naive_pack(NARROWED[before], state)}
        rows.append(
            {
                "frame": frame,
                "msgpack": _packed(frame | packed).hex(),
                "state": state,
                "canonical": wire.canonical(state).hex(),
                "crc": crc,
            }
        )
        before = tick
    return {"ack": NARROWED_ACK, "frames": rows}


def _packed(frame: dict[str, Any]) -> bytes:
    from arena_client import wire

    packed = wire.encode(frame, wire.SUBPROTOCOL_MSGPACK)
    assert isinstance(packed, bytes)
    return packed


def main() -> None:
    """Write all vectors and say what changed."""
    sys.path.insert(0, str(ROOT / "clients" / "python"))
    for name, content in vectors().items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
            print(f"wrote {path.relative_to(ROOT)}")  # noqa: T201  # a script tells what it does


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=True) + "\n").encode()


if __name__ == "__main__":
    main()
