"""Write the generated tables of docs/protocol.md: `python -m tests.support.make_protocol`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "protocol.md"
_SECTION = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def tables() -> dict[str, str]:
    """Return the text of every generated section by its name."""
    return {
        "errors": _errors(),
        "example": _example(),
        "fields": _fields(),
        "closes": _closes(),
        "actions": _actions(),
        "columns": _columns(),
        "batch": _batch(),
        "problems": _problems(),
        "rejects": _rejects(),
    }


def filled(page: str) -> str:
    """Return the page with every generated section written anew."""
    made = tables()
    return _SECTION.sub(lambda match: f"{match[1]}\n{made[match[2]]}\n{match[3]}", page)


def main() -> None:
    """Write the page when it differs."""
    sys.path.insert(0, str(ROOT / "clients" / "python"))
    page = PAGE.read_text(encoding="utf-8")
    if filled(page) != page:
        PAGE.write_text(filled(page), encoding="utf-8")
        print(f"wrote {PAGE.relative_to(ROOT)}")  # noqa: T201  # a script tells what it does


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(
        "|" + "|".join(f" {str(cell).replace('|', chr(92) + '|')} " for cell in line) + "|\n" for line in lines
    )


def _errors() -> str:
    from server.live.subscriber import MISTAKES

    return _table(("code", "title"), sorted((mistake.code, mistake.title) for mistake in MISTAKES))


def _closes() -> str:
    from arena_client.wire import CLOSE_CODES

    return _table(
        ("code", "name", "when", "what to do"),
        [(r.code, r.name, r.text, _ADVICE[r.advice]) for r in CLOSE_CODES.values()],
    )


_ADVICE = {
    "stop": "you are done",
    "reconnect": "reconnect with back-off and resume",
    "give_up": "give up: coming back changes nothing",
}


def _fields() -> str:
    from server.live.frames import CHANNELS

    parts = []
    for channel in CHANNELS.values():
        rows = []
        for field in channel.fields:
            scale, length, unit = channel.schema[field.name]
            shown = "text" if scale == 0 else f"{scale:,}"
            rows.append((f"`{field.name}`", length or "", unit, shown, field.text))
        title = f"**`{channel.name}`** ({channel.kind}): {channel.text}."
        parts.append(f"{title}\n\n{_table(('field', 'entries', 'unit', 'scale', 'meaning'), rows)}")
    return "\n".join(parts)


def _actions() -> str:
    from server.schemas import ACTION_MODELS

    rows = []
    for name, model in ACTION_MODELS.items():
        fields = [
            f"`{key}`" if field.is_required() else f"*`{key}`*"
            for key, field in model.model_fields.items()
            if key not in ("type", "client_action_id", "valid_until_tick")
        ]
        rows.append((f"`{name}`", ", ".join(fields), model.__doc__))
    common = "Every action has `client_action_id`, `type`, and *`valid_until_tick`*.\n\n"
    types: dict[tuple[str, str], list[str]] = {}
    for name, model in ACTION_MODELS.items():
        for key, field in model.model_fields.items():
            if field.description:
                types.setdefault((key, field.description), []).append(f"`{name}`")
    meanings = _table(
        ("field", "of", "allowed"),
        [
            (f"`{key}`", "all" if len(names) == len(ACTION_MODELS) else ", ".join(names), text)
            for (key, text), names in types.items()
        ],
    )
    return common + _table(("type", "further fields", "what it does"), rows) + "\n" + meanings


def _columns() -> str:
    from server.batches import BINARY

    types = {"<i8": "int64", "<i4": "int32", "i1": "int8", "u1": "uint8", "<u8": "uint64", "<f8": "float64"}
    rows: list[tuple[Any, ...]] = [("`client_action_id`", "bytes", "", "1 to 64 bytes of ASCII, as many for each")]
    for name, column in BINARY.items():
        absent = "" if column.absent is None else "NaN" if column.absent != column.absent else column.absent
        rows.append((f"`{name}`", types[column.dtype], absent, column.text))
    return _table(("column", "type", "no value", "meaning"), rows)


def _batch() -> str:
    from arena_client.columns import encode_columns

    columns = {
        "agent_id": [17, 18],
        "type": ["limit", "cancel"],
        "client_action_id": ["a-1", "b"],
        "market": [9, -1],
        "side": ["buy", 0],
        "quantity": [5, 0],
        "price": ["1.25", 0],
        "order_id": [0, 4711],
    }
    shown = {
        "agent_id": ["a17", "a18"],
        "type": ["limit", "cancel"],
        "client_action_id": ["a-1", "b"],
        "market": ["food", None],
        "side": ["buy", None],
        "quantity": [5, None],
        "price": ["1.25", None],
        "order_id": [None, "4711"],
    }
    return _block(json.dumps({"columns": shown})) + "\n" + _block(_hex(encode_columns(columns)))


def _problems() -> str:
    from server.errors import CODE_TEXT

    return _table(("code", "meaning"), [(int(code), text) for code, text in sorted(CODE_TEXT.items())])


def _rejects() -> str:
    from engine.messages import REJECT_TEXT

    return _table(("code", "meaning"), [(int(code), text) for code, text in sorted(REJECT_TEXT.items())])


def _example() -> str:
    from arena_client import wire

    folder = ROOT / "tests" / "vectors"
    messages = json.loads((folder / "frames.json").read_text())["messages"]
    snapshot, first, second = (messages[name] for name in ("04_snapshot", "05_delta", "06_delta_with_crc"))
    state = snapshot["state"]
    after_first = wire.apply(state, first)
    after_second = wire.apply(after_first, second)
    packed = (folder / "frames" / "05_delta.msgpack").read_bytes()
    second_packed = (folder / "frames" / "06_delta_with_crc.msgpack").read_bytes()
    return "\n".join(
        [
            _block(json.dumps(snapshot)),
            "Canonical bytes of its state (the fields sorted: `cpi`, `parts`, `rate`), and their CRC-32:\n",
            _block(_hex(wire.canonical(state)) + f"\ncrc = {snapshot['crc']} = 0x{snapshot['crc']:08x}"),
            "The next frame, as JSON and as the bytes of its binary twin: `00 08 01 f8` is the block of `cpi` and"
            " `rate`, where the first one's flag is set and f8 is 120 + 128, and the rest that of `parts`:\n",
            _block(json.dumps(first) + "\n" + _hex(packed)),
            f"The state at {first['seq']} is `{json.dumps(after_first)}`. The frame after it:\n",
            _block(json.dumps(second) + "\n" + _hex(second_packed)),
            f"The state at {second['seq']} is `{json.dumps(after_second)}`, its canonical bytes and their CRC-32:\n",
            _block(_hex(wire.canonical(after_second)) + f"\ncrc = {second['crc']} = 0x{second['crc']:08x}"),
        ]
    )


def _block(text: str) -> str:
    return f"```\n{text}\n```\n"


def _hex(data: bytes) -> str:
    return "\n".join(data[i : i + 40].hex(" ", 4) for i in range(0, len(data), 40))


if __name__ == "__main__":
    main()
