"""Small charts as SVG text: points, a fitted line, both axes logarithmic. The same numbers give the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 50
COLOURS = ("#1f5fa8", "#c44e2b", "#3b8a3e", "#8a5fb0", "#a08020", "#4aa0a8", "#b04a80", "#606060", "#203040")

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Points with a name; line: also a curve through so many x, for what is fitted. Values are above zero."""

    name: str
    points: Sequence[Point]
    line: Callable[[float], float] | None = None


def chart(title: str, x_label: str, y_label: str, series: Sequence[Series]) -> str:
    """Return an SVG document with all series over logarithmic axes."""
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in one.points]
    low_x, high_x = log10(min(xs)), log10(max(xs))
    low_y, high_y = floor(log10(min(ys))), ceil(log10(max(ys)))

    def at(x: float, y: float) -> str:
        across = (log10(x) - low_x) / (high_x - low_x)
        up = (log10(max(y, 10.0**low_y)) - low_y) / (high_y - low_y)
        return f"{LEFT + across * (WIDTH - LEFT - RIGHT):.1f},{HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM):.1f}"

    parts = [_text(WIDTH / 2, 22, title, "middle", 15)]
    for power in range(low_y, high_y + 1):
        parts += _grid(at(10.0**low_x, 10.0**power), at(10.0**high_x, 10.0**power), _number(10.0**power), "left")
    for power in range(ceil(low_x - 1e-9), floor(high_x + 1e-9) + 1):
        parts += _grid(at(10.0**power, 10.0**low_y), at(10.0**power, 10.0**high_y), _number(10.0**power), "below")
    for number, one in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        curve = [at(x, y) for x, y in one.points]
        if one.line:
            steps = [10 ** (low_x + (high_x - low_x) * k / 100) for k in range(101)]
            curve = [at(x, one.line(x)) for x in steps]
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{" ".join(curve)}"/>')
        for point in (at(x, y).split(",") for x, y in one.points):
            parts.append(f'<circle cx="{point[0]}" cy="{point[1]}" r="3" fill="{colour}"/>')
        parts.append(_text(LEFT + 12, TOP + 14 + 15 * number, one.name, "start", 12, colour))
    parts.append(_text(WIDTH / 2, HEIGHT - 10, x_label, "middle", 13))
    middle = HEIGHT / 2
    parts.append(f'<g transform="rotate(-90 16 {middle})">{_text(16, middle, y_label, "middle", 13)}</g>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>"]) + "\n"


def _grid(start: str, end: str, label: str, side: str) -> list[str]:
    (x1, y1), (x2, y2) = start.split(","), end.split(",")
    line = f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#dddddd"/>'
    if side == "left":
        return [line, _text(float(x1) - 6, float(y1) + 4, label, "end", 11)]
    return [line, _text(float(x1), float(y1) + 16, label, "middle", 11)]


def _text(x: float, y: float, text: str, anchor: str, size: int, colour: str = "#222222") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{escape(text)}</text>'
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"
