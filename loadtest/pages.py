"""docs/performance.md with its charts, and what other pages of docs say was measured: from the committed results.

python -m loadtest.cost_curves --pages
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from loadtest.chart import Series, chart
from loadtest.gateways.verdict import ASKED, held, trials
from loadtest.locust.profiles import PROFILES

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "loadtest" / "results"
DOCS = ROOT / "docs"
INTRODUCTION = """\
# Performance

Written by `.venv/bin/python -m loadtest.cost_curves --pages` from [loadtest/results](../loadtest/results); every number
on this page is measured, none is typed. Measure again with

    python3 -m server bench --out loadtest/results/bench.json
    .venv/bin/python -m loadtest.cost_curves --out loadtest/results/cost_curves.json
    .venv/bin/python -m loadtest.micro.bench_layout --out loadtest/results/layout.json
    .venv/bin/python -m loadtest.endurance --ticks 100000 --out loadtest/results/endurance.json
"""

MEASURED, END = "<!-- measured: written by .venv/bin/python -m loadtest.cost_curves --pages -->", "<!-- end -->"
"""Between these two, docs/durability.md, streams.md, loadtest.md and gateways.md are written from the results."""
CHECKED = (*(f"locust_{name}" for name in PROFILES), "stress", "leak")
"""Results that are numbers against thresholds."""

Document = dict[str, Any]
Rows = list[Document]


def write() -> None:
    """Write the page and its charts."""
    for name, text in files().items():
        (DOCS / name).write_text(text, encoding="utf-8")


def files() -> dict[str, str]:
    """Return the page and its charts by their path below docs."""
    bench = _result("bench")
    curves, layout, endurance = _result("cost_curves"), _result("layout"), _result("endurance")
    page = "\n".join([INTRODUCTION, _bars(bench), _curves(curves), _layout(layout), _endurance(endurance)])
    durability: dict[str, Callable[[Any], str]] = {
        "kills": _kills,
        "simulation": _simulation,
        "durable": partial(_rows, "durable"),
    }
    return {
        "performance.md": page,
        "durability.md": _measured("durability.md", durability),
        "streams.md": _measured(
            "streams.md",
            {
                "streams": partial(_rows, "streams"),
                "churn": partial(_held, "Churn", "churn", _churn),
                "slow_readers": partial(_held, "Slow readers", "slow_readers", _slow),
                "storm": partial(_held, "Storm", "storm", _storm),
                "faults": partial(_held, "Faults", "faults", _faults),
            },
        ),
        "loadtest.md": _measured(
            "loadtest.md",
            {
                **{name: partial(_checked, name) for name in CHECKED},
                "crowd": partial(_held, "Crowd", "crowd", _crowd),
                "flood": partial(_held, "Flood", "flood", _crowd),
            },
        ),
        "gateways.md": _measured("gateways.md", {"gateways": _gateways}),
        **_charts(curves),
    }


def _measured(page: str, sections: dict[str, Callable[[Any], str]]) -> str:
    """Return a page of docs with what was measured in its place: what its section says of each committed result.

    sections: by name of the result.
    """
    before, _, rest = (DOCS / page).read_text(encoding="utf-8").partition(MEASURED)
    measured = "\n".join(
        section(_result(name)) for name, section in sections.items() if (RESULTS / f"{name}.json").exists()
    )
    return f"{before}{MEASURED}\n\n{measured}\n{END}{rest.partition(END)[2]}"


def _kills(result: Document) -> str:
    ended = result["ended"]
    counts = {
        "kill -9": ended.get("kill", 0) + ended.get("kill while starting", 0),
        "of these while starting": ended.get("kill while starting", 0),
        "power cuts": ended.get("power", 0) + ended.get("power while starting", 0),
        "of these power cuts while starting": ended.get("power while starting", 0),
        "SIGTERM under load": ended.get("drain", 0),
        "actions acknowledged": result["actions_acknowledged"],
        "ticks replayed at the end": result["ticks"],
        "stored hashes met": result["hashes_checked"],
        "documents and events compared with what clients saw": result["documents_compared"] + result["events_compared"],
        "recoveries done again beside, to the same hash": result["twin_recoveries"],
        "promises broken": len(result["wrong"]),
    }
    drains = [part["drain_s"]["max"] for part in result["parts"]]
    return "\n".join(
        [
            "**Servers ended** ([kills.json](../loadtest/results/kills.json))\n",
            *_table(counts),
            f"\nThe longest drain took {max(drains):.1f} s. {_parts(result)}\n",
        ]
    )


def _simulation(result: Document) -> str:
    counts = {
        "seeds": result["seeds"],
        "simulated minutes": result["simulated_minutes"],
        "lives of a server": result["lives"],
        "ticks": result["ticks"],
        "actions acknowledged": result["acknowledged"],
        "twins": result["twins"],
        "operations of a disk failed in turn": result["disk_operations_failed"],
        "seeds that failed": len(result["failed"]),
    }
    ends = ", ".join(f"{name} {count:,}" for name, count in result["ends"].items())
    return "\n".join(
        [
            "**Simulation** ([simulation.json](../loadtest/results/simulation.json))\n",
            *_table(counts),
            f"\nLives ended by: {ends}. {_parts(result)}\n",
        ]
    )


def _rows(name: str, rows: Rows) -> str:
    lines = [
        _line(
            f"`{row['id']}`",
            f"{row['value']:g}",
            f"{'at least' if row['at_least'] else 'at most'} {row['bar']:g}",
            "pass" if row["pass"] else "**misses**",
            row["unit"],
            row["spread"],
        )
        for row in rows
    ]
    head = [_line("id", "value", "bar", "", "unit", "spread"), _line(*["---"] * 6)]
    return "\n".join(
        [
            f"**Rows of `arena bench`** ([{name}.json](../loadtest/results/{name}.json))\n",
            *head,
            *lines,
            f"\n{_origins(rows, 'id')}\n",
        ]
    )


def _held(title: str, name: str, facts: Callable[[Document], dict[str, object]], result: Document) -> str:
    """Return what a long run saw and what had to hold of it."""
    return "\n".join(
        [
            f"**{title}** ([{name}.json](../loadtest/results/{name}.json))\n",
            *_seen(facts(result), result["held"]),
            f"\n{_origin(result)}\n",
        ]
    )


def _seen(facts: dict[str, object], judged: dict[str, bool]) -> list[str]:
    return [
        _line("what", "seen"),
        _line("---", "---"),
        *(_line(what, f"{seen:,}" if isinstance(seen, int) else str(seen)) for what, seen in facts.items()),
        *(_line(f"it holds: {what}", "yes" if holds else "**no**") for what, holds in judged.items()),
    ]


def _gateways(result: Document) -> str:
    """Return what runs of gateways saw, whether it holds, and where each of their parts comes from."""
    exchanges, outages, acks, frames = (result[part] for part in ASKED)
    facts = {
        "kills at a step of an exchange": trials(result, "exchanges"),
        "actions acknowledged": exchanges["actions_acknowledged"],
        "actions surely refused": exchanges["actions_surely_refused"],
        "promises broken": len(exchanges["wrong"]),
        "engines killed under open sockets": outages["outages"],
        "sockets that were open then, over all": outages["sockets_times_outages"],
        "of these lost": outages["sockets_lost"],
        "first new frame at the last subscriber, s after the new engine was ready, at most": max(
            part["back_s"]["max"] for part in outages["parts"]
        ),
        "acknowledgements each way": acks["requests"],
        **{
            f"durable acknowledgement {where}, {many}, ms p50 (a run each)": " ".join(
                f"{part[kind][way]['p50']:.1f}" for part in acks["parts"]
            )
            for kind, many in (("one_at_a_time_ms", "one at a time"), ("32_at_once_ms", "32 at once"))
            for way, where in (("gateway", "through a gateway"), ("engine", "straight"))
        },
        **{
            f"a frame at one of 1,000 subscribers {where}, ms p50 and p99 (a run each)": " ".join(
                "{p50:.1f} {p99:.1f}".format(**part["latency_ms"][way]) for part in frames["parts"]
            )
            for way, where in (("gateway", "of a gateway"), ("engine", "of the engine"))
        },
    }
    return "\n".join(
        [
            "**Gateways** ([gateways.json](../loadtest/results/gateways.json))\n",
            *_seen(facts, held(result)),
            "",
            *(f"{part}: {_parts(result[part])}\n" for part in ASKED),
        ]
    )


def _churn(result: Document) -> dict[str, object]:
    return {
        "connects": result["connects"],
        "other connections": result["idle_connections"],
        "frames that were accounted for": result["frames_to_staying"] + result["frames_to_passing"],
        "foreign bytes": result["foreign"],
    }


def _slow(result: Document) -> dict[str, object]:
    rounds = result["rounds"]
    return {
        "rounds": len(rounds),
        "noticed, s after they stopped": " ".join(f"{one['noticed_s'][-1]:.1f}" for one in rounds),
        "cut, s after they stopped": " ".join(f"{one['cut_s'][-1]:.1f}" for one in rounds),
        "cost of one, KiB": f"{max(one['in_kernel_most_bytes'] for one in rounds) / 1024:.0f} in the kernel,"
        f" {result['in_process_each_bytes'] / 1024:.0f} in the process",
        "the others' p99 over what it was": " ".join(f"{ratio:.2f}" for ratio in result["ratio"]["all"]),
    }


def _storm(result: Document) -> dict[str, object]:
    storms = result["storms"]
    return {
        "connections": result["subscribers"],
        "all in step after, s": " ".join(f"{one['in_step_s']:.1f}" for one in storms),
        "ticks meanwhile": int(sum(one["ticks"] for one in storms)),
        "of these 20 ms late": int(sum(one["ticks_20_ms_late"] for one in storms)),
        "resumed where they stood": " ".join(f"{one['resumed']:,}" for one in storms),
        "reset by the kernel, whose queue was full, and back at the second attempt": sum(
            one["again"] for one in storms
        ),
        "told that frames were left out": sum(one["lagged"] for one in storms),
        "frames missing": sum(one["gaps"] for one in storms),
        "latency when all was caught up with, ms": "p50 {p50:.0f}, p99 {p99:.0f}".format(
            **result["afterwards"]["latency_ms"]
        ),
    }


def _faults(result: Document) -> dict[str, object]:
    return {
        "faults": result["faults_total"],
        "of these": ", ".join(f"{name} {count:,}" for name, count in result["faults"].items()),
        "restarts": result["restarts"],
        "reconnects": result["reconnects"],
        "resyncs": result["resyncs"],
        "states compared": result["states_compared"],
        "gaps undetected": len(result["differing"]) + len(result["event_lists_broken"]),
        "checksums that did not fit": len(result["checksum_misses"]),
        **_private(result),
    }


def _private(result: Document) -> dict[str, object]:
    # runs before a bot took part know nothing of it
    if "private_actions" not in result:
        return {}
    return {
        "actions of the bot": result["private_actions"],
        "entries of its private channel, to each follower": ", ".join(
            f"{count:,}" for count in result["private_entries"].values()
        ),
        "of these lost or broken": len(result["private_lost"]) + len(result["private_entries_broken"]),
    }


def _checked(name: str, result: Document) -> str:
    """Return the numbers of a load test and their thresholds."""
    return "\n".join(
        [
            f"**{name}** ([{name}.json](../loadtest/results/{name}.json))\n",
            _line("what", "value", "unit", "bar", ""),
            _line(*["---"] * 5),
            *(
                _line(
                    what,
                    f"{check['value']:g}",
                    check["unit"],
                    f"at most {check['at_most']:g}" if "at_most" in check else f"at least {check['at_least']:g}",
                    "pass" if check["pass"] else "**misses**",
                )
                for what, check in result["checks"].items()
            ),
            f"\n{_origin(result)}\n",
        ]
    )


def _crowd(result: Document) -> dict[str, object]:
    sent, server, machine = result["sent"], result["server"], result.get("stood_still")
    stood_still = {"longest a processor stood still, ms": round(machine["longest_ms"])} if machine else {}
    return {
        "residents": result["residents"],
        "outside agents": sent["agents"],
        "seconds": round(server["seconds"]),
        "actions accepted": sent["accepted"],
        "actions refused": sent["refused"],
        "actions a tick": round(server["actions_per_tick"]),
        "acknowledged, ms p50 and p99": f"{sent['ack_ms_p50']:.1f} and {sent['ack_ms_p99']:.1f}",
        "ticks": server["ticks"],
        "ticks within 20 ms of their time": f"{server['share_within_ms']['0.02']:.2%}",
        "ticks more than 100 ms late": server["ticks_late"],
        **stood_still,
        "memory at most, MB": round(result["memory"]["rss_mb_most"]),
        "processors used": f"{result['processor_cores']:.2f}",
    }


def _table(counts: dict[str, int]) -> list[str]:
    return [_line("what", "count"), _line("---", "---"), *(_line(name, f"{n:,}") for name, n in counts.items())]


def _parts(result: Document) -> str:
    """Say where the parts of a long run come from: how many of each machine, and the revisions there."""
    parts = result["parts"]
    revisions: dict[str, list[str]] = {}
    for part in parts:
        revisions.setdefault(part["machine"], []).append(part["revision"])
    of_each = (
        f"{_count(len(found), 'run')} at revision {', '.join(dict.fromkeys(found))}, {machine}"
        for machine, found in revisions.items()
    )
    return f"{'; '.join(of_each)}."


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _bars(rows: Rows) -> str:
    lines = [
        "## The numbers and their bars\n",
        "| id | value | bar | | what it is | spread |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        sign = "at least" if row.get("at_least") else "at most"
        verdict = "pass" if row["pass"] else "**misses**"
        value, bar = f"{row['value']:g}", f"{sign} {row['bar']:g}"
        lines.append(_line(f"`{row['id']}`", value, bar, verdict, row["unit"], row["spread"]))
    lines.append(
        "\nWhat each row includes and what not stands beside it in [bench.json](../loadtest/results/bench.json).\n"
    )
    lines.append(f"{_origins(rows, 'id')}\n")
    return "\n".join(lines)


def _curves(curves: Document) -> str:
    fits, rows = curves["fits"], curves["residents"]
    phases = list(rows[0]["phases_ms"])
    table = [
        _line("residents", "ms a tick", "ns each", "p10 to p90, ms", "two threads, ms", "state, MB", "process, MB"),
        _line(*["---"] * 7),
        *(
            _line(
                f"{row['residents']:,}",
                f"{row['tick_ms']:.3f}",
                f"{row['ns_per_resident']:.1f}",
                f"{row['p10_ms']:.3f} to {row['p90_ms']:.3f}",
                f"{row['two_threads_ms']:.3f}",
                f"{row['state_mb']:.2f}",
                f"{row['rss_mb']:.0f}",
            )
            for row in rows
        ),
    ]
    shares = [
        _line("residents", *phases),
        _line(*["---"] * (len(phases) + 1)),
        *(
            _line(
                f"{row['residents']:,}",
                *(f"{100 * ms / sum(row['phases_ms'].values()):.1f} %" for ms in row["phases_ms"].values()),
            )
            for row in rows
        ),
    ]
    orders = [
        _line("orders in the tick", "plain tick, ms", "with them, ms", "more, ms", "filled", "refused"),
        _line(*["---"] * 6),
        *(
            _line(
                f"{row['orders']:,}",
                f"{row['plain_ms']:.3f}",
                f"{row['tick_ms']:.3f}",
                f"{row['extra_ms']:.3f}",
                f"{row['filled_share']:.0%}",
                f"{row['rejected_share']:.1%}",
            )
            for row in curves["orders"]
        ),
    ]
    markets = [
        _line("markets", "clearing, ms"),
        _line("---", "---"),
        *(_line(str(row["markets"]), f"{row['clearing_ms']:.4f}") for row in curves["markets"]),
    ]
    return "\n".join(
        [
            "## What a tick costs\n",
            "One thread, CPU time, median. Predict yours with\n",
            _formula("tick, ms", fits["tick_ms_of_residents"], "residents"),
            _formula("process, MB", fits["memory_mb_of_residents"], "residents"),
            _formula("more for outside orders, ms", fits["extra_ms_of_orders"], "orders in the tick"),
            _formula("clearing, ms", fits["clearing_ms_of_markets"], "markets"),
            "\n" + "\n".join(table),
            "\n![Time per tick against residents](images/cost_residents.svg)",
            "![Memory against residents](images/cost_memory.svg)",
            "\n### Share per phase\n",
            "\n".join(shares),
            "\n![Phases against residents](images/cost_phases.svg)",
            "\n### Outside orders\n",
            f"So many of {curves['orders'][-1]['orders']:,} agents, one limit order each, in random order over all"
            f" markets, good for one tick, in a world of {min(100_000, rows[-1]['residents']):,} residents; ticks"
            " without orders stand between.\n",
            "\n".join(orders),
            "\n![More time against outside orders](images/cost_orders.svg)",
            "\n### Markets\n",
            "The world has 32 markets, fixed. What is varied here is the clearing kernel alone: each synthetic market",
            "holds the orders of one of the 32 of a real world, taken in turn, filled anew before every clearing.\n",
            "\n".join(markets),
            "\n![Clearing against markets](images/cost_markets.svg)",
            f"\n{_origin(curves)}\n",
        ]
    )


def _layout(layout: Document) -> str:
    rows = [
        _line("layout", "ns a resident and tick", "spread", "bytes a resident", "times the arrays"),
        _line(*["---"] * 5),
        *(
            _line(
                name,
                f"{row['ns_per_resident']:.2f}",
                f"{row['spread_ns'][0]:.2f} to {row['spread_ns'][1]:.2f}",
                f"{row['bytes_per_resident']:.1f}",
                f"{row['times_the_arrays']:.0f}",
            )
            for name, row in layout["layouts"].items()
        ),
    ]
    return "\n".join(
        [
            "## Why arrays\n",
            f"{layout['residents']:,} residents: {layout['includes']}. Not in it: {layout['excludes']}.\n",
            "\n".join(rows),
            f"\n{_origin(layout)}\n",
        ]
    )


def _endurance(result: Document) -> str:
    checks = result["checks"]
    memory = checks["memory"]
    actions = sum(result["actions"].values())
    return "\n".join(
        [
            "## The long run\n",
            f"{result['ticks']:,} ticks of {result['residents']:,} residents with up to {result['bots']} bots that"
            f" come, trade in spells and leave: {actions:,} actions, {result['seconds']:.0f} s.\n",
            f"- Invariants: {checks['invariants']['value']}.",
            f"- Markets: {checks['markets']['value']}.",
            f"- Memory: {memory['value']:g} {memory['unit']} (at most {memory['bar']:g}),"
            f" {result['memory_mb']['first']:g} MB at first, {result['memory_mb']['last']:g} MB at the end.",
            f"\n{_origin(result)}\n",
        ]
    )


def _charts(curves: Document) -> dict[str, str]:
    rows, fits = curves["residents"], curves["fits"]
    tick, memory = fits["tick_ms_of_residents"], fits["memory_mb_of_residents"]
    phases = [
        Series(name, [(row["residents"], row["phases_ms"][name]) for row in rows]) for name in rows[0]["phases_ms"]
    ]
    orders, markets = curves["orders"][1:], curves["markets"]
    return {
        "images/cost_residents.svg": chart(
            "Time per tick",
            "residents",
            "ms",
            [
                Series("one thread, and what is fitted", _points(rows, "residents", "tick_ms"), _fit(tick)),
                Series("two threads", _points(rows, "residents", "two_threads_ms")),
            ],
        ),
        "images/cost_memory.svg": chart(
            "Memory",
            "residents",
            "MB",
            [
                Series("process, and what is fitted", _points(rows, "residents", "rss_mb"), _fit(memory)),
                Series("the world's arrays", _points(rows, "residents", "state_mb")),
            ],
        ),
        "images/cost_phases.svg": chart("Phases of a tick", "residents", "ms", phases),
        "images/cost_orders.svg": chart(
            "More time for outside orders",
            "orders in the tick",
            "ms",
            [
                Series(
                    "more than the plain tick", _points(orders, "orders", "extra_ms"), _fit(fits["extra_ms_of_orders"])
                )
            ],
        ),
        "images/cost_markets.svg": chart(
            "Clearing",
            "markets",
            "ms",
            [
                Series(
                    "the kernel alone", _points(markets, "markets", "clearing_ms"), _fit(fits["clearing_ms_of_markets"])
                )
            ],
        ),
    }


def _points(rows: Sequence[Document], x: str, y: str) -> list[tuple[float, float]]:
    return [(row[x], row[y]) for row in rows if row[y] > 0]


def _fit(fit: Document) -> Callable[[float], float]:
    fixed, slope = float(fit["fixed"]), float(fit["slope"])
    return lambda x: fixed + slope * x


def _formula(name: str, fit: Document, of: str) -> str:
    sign = "+" if fit["slope"] >= 0 else "-"
    return (
        f"- {name} = {fit['fixed']:.4g} {sign} {abs(fit['slope']):.4g} x {of}"
        f" (R^2 {fit['r_squared']:.4f}, at most {fit['largest_relative_error']:.0%} off where it was measured)"
    )


def _origin(document: Document) -> str:
    return f"Revision {document['revision']}, {document['machine']}."


def _origins(documents: Iterable[Document], name: str) -> str:
    """Say where rows of one table come from: together when they are of one origin, else by origin with their names."""
    rows: dict[str, list[str]] = {}
    for document in documents:
        rows.setdefault(_origin(document), []).append(f"`{document[name]}`")
    if len(rows) == 1:
        return next(iter(rows))
    return "\n".join(f"- {', '.join(names)}: {origin[0].lower()}{origin[1:]}" for origin, names in rows.items())


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
