"""The two pages: `/`, what this is with the indicators live, and `/docs`, the interface rendered from its own OpenAPI.

Plain HTML written here, one style sheet and one module served from here: no build, no inline script, no address of
anybody else, so both work offline and under a policy that allows nothing else.
"""

from __future__ import annotations

import json
from html import escape
from typing import Any

from engine.markets import NAMES
from engine.public import INDICATOR_FIELDS, PSYCHOLOGY_FIELDS
from server.errors import CODE_TEXT
from server.live.frames import INFLATION, MARKET_TICK, PSYCHOLOGY, UNITS
from server.live.view import KIND, View

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_MARKET_COLUMNS = ("price", "return_bp", "volume", "best_bid", "best_ask", "volatility", "sentiment")
_EXAMPLES = """\
# join: the key is shown once
curl -s -X POST http://127.0.0.1:8000/api/agents/register
# buy five lots of food at 1.25 credits or less, and wait for the tick that decides
curl -s -X POST 'http://127.0.0.1:8000/api/agents/AGENT_ID/action?wait=outcome' \\
     -H 'Authorization: Bearer API_KEY' -H 'Content-Type: application/json' \\
     -d '{"client_action_id": "first", "type": "limit", "market": "food", "side": "buy",
          "quantity": 5, "price": "1.25"}'
# what you have
curl -s http://127.0.0.1:8000/api/agents/AGENT_ID -H 'Authorization: Bearer API_KEY'
# daily candles of oil, and the price index as a table
curl -s 'http://127.0.0.1:8000/api/history/oil?format=candles'
curl -s 'http://127.0.0.1:8000/api/history/cpi?format=csv&step=24'
"""


def front(view: View, version: str) -> str:
    """Return the page `/` with the numbers of a view in it; the module keeps them current."""
    indicators = [(INFLATION, field.name, field.text) for field in INDICATOR_FIELDS]
    shown = {field.name for field in INDICATOR_FIELDS}
    moods = [(PSYCHOLOGY, field.name, field.text) for field in PSYCHOLOGY_FIELDS if field.name not in shown]
    return _page(
        "Living Economy Arena",
        f"""
<h1>Living Economy Arena</h1>
<p>A whole economy, live: residents work, produce, trade and worry in 32 markets, ten simulated hours a second. Anyone
may watch it, and any program may join it: an agent registers, gets an account, and its orders meet everybody else's in
one auction a tick.</p>
<p>Tick <b id="tick">{view.tick}</b>, epoch <code>{escape(view.epoch)}</code>, version {escape(version)}.
<span id="link" role="status"></span></p>
<nav><a href="/docs">Interface</a> <a href="#examples">Examples</a> <a href="/metrics">Metrics</a>
<a href="/api/info">Markets and limits</a> <a href="/api/events?order=desc">Events</a> <a href="/api/status">Status</a>
<a href="/openapi.json">OpenAPI</a> <a href="/asyncapi.json">AsyncAPI</a></nav>
<h2>Indicators</h2>
{_values_table(view, indicators + moods)}
<h2>Markets</h2>
{_markets_table(view)}
<h2 id="examples">Examples</h2>
<p>With nothing but curl; whole bots and a terminal watcher are in <code>clients/python/examples</code> of the
repository, the protocol of the streams in <code>docs/protocol.md</code>.</p>
<pre><code>{escape(_EXAMPLES)}</code></pre>
""",
        script=True,
    )


def docs(openapi: dict[str, Any]) -> str:
    """Return the page `/docs`: every route, its parameters, bodies and answers, and the codes of problems."""
    groups: dict[str, list[str]] = {tag["name"]: [] for tag in openapi["tags"]}
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            groups[operation["tags"][0]].append(_operation(method.upper(), path, operation))
    sections = "".join(f"<h2>{escape(name.capitalize())}</h2>{''.join(items)}" for name, items in groups.items())
    models = "".join(
        f'<details id="schema-{escape(name)}"><summary><code>{escape(name)}</code> '
        f"{escape(schema.get('description', '').splitlines()[0] if schema.get('description') else '')}</summary>"
        f"{_properties(schema)}</details>"
        for name, schema in sorted(openapi["components"]["schemas"].items())
    )
    codes = "".join(
        f'<tr id="problem-{int(code)}"><td>{int(code)}</td><td>{escape(text)}</td></tr>'
        for code, text in CODE_TEXT.items()
    )
    return _page(
        "Interface - Living Economy Arena",
        f"""
<h1>Interface</h1>
<p><a href="/">Living Economy Arena</a> {escape(openapi["info"]["version"])}. The same for machines:
<a href="/openapi.json">OpenAPI</a>, <a href="/asyncapi.json">AsyncAPI</a> for the streams of <code>/ws</code>.
Errors are <code>application/problem+json</code>; every answer carries <code>X-Request-Id</code> and
<code>Arena-Tick</code>. Keys go in <code>Authorization: Bearer ak_...</code> or <code>X-API-Key</code>.</p>
{sections}
<h2>Schemas</h2>
{models}
<h2>Problem codes</h2>
<p>1xx shape, 2xx funds, 3xx market, 4xx limits, 5xx ours. Those of the world are in
<a href="/api/info">/api/info</a> under rejects.</p>
<table><thead><tr><th>code</th><th>meaning</th></tr></thead><tbody>{codes}</tbody></table>
""",
        script=False,
    )


def _page(title: str, body: str, *, script: bool) -> str:
    module = '<script type="module" src="/assets/live.js"></script>' if script else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="stylesheet" href="/assets/arena.css">{module}</head>'
        f"<body><main>{body}</main></body></html>\n"
    )


def _values_table(view: View, rows: list[tuple[str, str, str]]) -> str:
    cells = "".join(
        f'<tr><th scope="row">{escape(name.replace("_", " "))}</th>'
        f'<td class="number" data-channel="{channel}" data-field="{name}">{_number(view.numbers[channel][name])}</td>'
        f"<td>{escape(UNITS[channel][name])}</td><td>{escape(text)}</td></tr>"
        for channel, name, text in rows
    )
    head = "<tr><th>indicator</th><th>value</th><th>unit</th><th>meaning</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{cells}</tbody></table>"


def _markets_table(view: View) -> str:
    numbers = view.numbers[MARKET_TICK]
    head = "".join(
        f"<th>{name.replace('_', ' ')} [{escape(UNITS[MARKET_TICK][name])}]</th>" for name in _MARKET_COLUMNS
    )
    rows = "".join(
        f'<tr><th scope="row"><a href="/api/markets/{name}">{escape(name.replace("_", " "))}</a></th><td>{KIND[m]}</td>'
        + "".join(
            f'<td class="number" data-channel="{MARKET_TICK}" data-field="{column}" data-index="{m}">'
            f"{_number(numbers[column][m])}</td>"
            for column in _MARKET_COLUMNS
        )
        + "</tr>"
        for m, name in enumerate(NAMES)
    )
    return f"<table><thead><tr><th>market</th><th>kind</th>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = "".join(
        f"<tr><td><code>{escape(item['name'])}</code></td><td>{item['in']}</td><td>{_type(item['schema'])}</td>"
        f"<td>{escape(item['description'])}</td></tr>"
        for item in operation["parameters"]
    )
    table = (
        "<table><thead><tr><th>parameter</th><th>in</th><th>type</th><th>meaning</th></tr></thead>"
        f"<tbody>{parameters}</tbody></table>"
        if parameters
        else ""
    )
    body = operation.get("requestBody")
    body_text = ""
    if body is not None:
        media, schema = " or ".join(body["content"]), next(iter(body["content"].values()))["schema"]
        body_text = f"<p>Body, {escape(media)}, {escape(body['description'])}: {_type(schema)}</p>"
    answers = "".join(
        f"<li><b>{status}</b> {escape(answer['description'])} {_answer_type(answer)}</li>"
        for status, answer in operation["responses"].items()
    )
    return (
        f'<details id="{escape(operation["operationId"])}"><summary><b>{method}</b> <code>{escape(path)}</code> '
        f"{escape(operation['summary'])} <small>{operation['x-role']}</small></summary>"
        f"<p>{escape(operation.get('description', ''))}</p>{table}{body_text}<ul>{answers}</ul></details>"
    )


def _answer_type(answer: dict[str, Any]) -> str:
    kinds = {_type(content["schema"]) for content in answer.get("content", {}).values() if content["schema"]}
    return ", ".join(sorted(kinds))


def _properties(schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{_type(item)}</td>"
        f"<td>{'yes' if name in required else escape(json.dumps(item['default'])) if 'default' in item else 'no'}</td>"
        f"<td>{escape(item.get('description', ''))}</td></tr>"
        for name, item in schema.get("properties", {}).items()
    )
    head = "<tr><th>field</th><th>type</th><th>required, or default</th><th>meaning</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _type(schema: dict[str, Any]) -> str:
    """Return a schema in a few words, with a link to the model it names."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#schema-{name}">{name}</a>'
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        return " or ".join(dict.fromkeys(_type(option) for option in options))
    if "const" in schema:
        return f"<code>{escape(json.dumps(schema['const']))}</code>"
    if "enum" in schema:
        return " ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    kind = escape(str(schema.get("type", "any")))
    if kind == "array" and schema.get("items"):
        kind = f"list of {_type(schema['items'])}"
    bounds = [
        f"{sign} {schema[key]}"
        for key, sign in (
            ("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"), ("minItems", "at least"),
            ("maxItems", "at most"),
        )
        if key in schema
    ]  # fmt: skip
    pattern = f" <code>{escape(schema['pattern'])}</code>" if "pattern" in schema else ""
    return f"{kind} {' '.join(bounds)}".strip() + pattern


_STYLE = """\
:root { color-scheme: light dark; font: 16px/1.45 system-ui, sans-serif; }
body { margin: 0; }
main { max-width: 72rem; margin: 0 auto; padding: 1rem; }
nav { display: flex; flex-wrap: wrap; gap: 1rem; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; }
th, td { text-align: left; padding: .2rem .6rem;
  border-bottom: 1px solid color-mix(in srgb, currentColor 18%, transparent); }
thead th { position: sticky; top: 0; background: Canvas; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
pre { overflow-x: auto; padding: .8rem; border: 1px solid color-mix(in srgb, currentColor 25%, transparent); }
details { margin: .4rem 0; }
summary { cursor: pointer; }
code { font-size: .9em; overflow-wrap: anywhere; }
"""

_LIVE = """\
// Keeps the numbers of the page current from the JSON twin of the stream; without it the page shows one tick.
const cells = new Map();
for (const cell of document.querySelectorAll("[data-field]")) {
  const { channel, field, index } = cell.dataset;
  if (!cells.has(channel)) cells.set(channel, []);
  cells.get(channel).push({ cell, field, index });
}
const tickCell = document.getElementById("tick");
const link = document.getElementById("link");
let retry = 500;

function connect() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(`${scheme}//${location.host}/ws`, ["arena.v2.json"]);
  const mirrors = new Map();
  let fields = new Map();

  socket.onmessage = ({ data }) => {
    const frame = JSON.parse(data);
    if (frame.type === "hello") {
      retry = 500;
      link.textContent = "live";
      fields = new Map(frame.channels.map((channel) => [channel.name, channel.fields]));
      for (const channel of cells.keys()) {
        socket.send(JSON.stringify({ op: "subscribe", id: channel, channel }));
      }
    } else if (frame.type === "snapshot") {
      mirrors.set(frame.channel, { seq: frame.seq, state: frame.state });
      show(frame, mirrors, fields);
    } else if (frame.type === "delta") {
      const mirror = mirrors.get(frame.channel);
      if (mirror === undefined) return;
      if (mirror.seq !== frame.base) {
        mirrors.delete(frame.channel);
        socket.send(JSON.stringify({ op: "resync", id: frame.channel, channel: frame.channel }));
        return;
      }
      apply(mirror.state, frame);
      mirror.seq = frame.seq;
      show(frame, mirrors, fields);
    }
  };
  socket.onclose = () => {
    link.textContent = "not connected";
    setTimeout(connect, retry * (0.5 + Math.random()));
    retry = Math.min(retry * 2, 30000);
  };
}

function apply(state, { diff }) {
  for (const [field, difference] of Object.entries(diff)) {
    if (Array.isArray(difference)) difference.forEach((entry, i) => { state[field][i] += entry; });
    else state[field] += difference;
  }
}

function show({ channel, tick }, mirrors, fields) {
  const { state } = mirrors.get(channel);
  tickCell.textContent = tick;
  for (const { cell, field, index } of cells.get(channel)) {
    const [scale] = fields.get(channel)[field];
    const value = (index === undefined ? state[field] : state[field][index]) / scale;
    cell.textContent = Number.isInteger(value) ? value : value.toPrecision(6);
  }
}

connect();
"""

#: Content type and text of each file under /assets/.
ASSETS = {"arena.css": ("text/css", _STYLE), "live.js": ("text/javascript", _LIVE)}
