"""Charts as inline SVG: grouped bars with intervals, and radar plots. Shapes only; colours are CSS classes of the page they stand in."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from training.statistics import Interval

COLOURS = 8
"""Series have the classes `c0` to `c7` in turn."""

RADAR = 500, 330
"""Width and height of a radar plot."""
_WIDTH, _HEIGHT = 760, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 8, 10, 34


def bars(title: str, groups: Sequence[str], series: Mapping[str, Sequence[Interval]]) -> str:
    """Grouped bars between 0 and 1 with their 95 % intervals; a group without reports stays empty. Each series has one interval a group."""
    high = _HEIGHT - _TOP - _BOTTOM
    slot = (_WIDTH - _LEFT - _RIGHT) / max(1, len(groups))
    width = min(26.0, slot * 0.84 / max(1, len(series)))

    def y(value: float) -> float:
        return _TOP + high * (1 - min(1.0, max(0.0, value)))

    parts = [_open(title, _WIDTH, _HEIGHT)]
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.1f}</text>')
    for place, group in enumerate(groups):
        middle = _LEFT + slot * (place + 0.5)
        parts.append(
            f'<text class="label" x="{middle:.1f}" y="{_HEIGHT - 12}" text-anchor="middle">{escape(group)}</text>'
        )
        left = middle - width * len(series) / 2
        for number, (name, values) in enumerate(series.items()):
            value = values[place]
            if not value.n:
                continue
            x = left + number * width
            told = f"{name}, {group}: {value.mean:.3f} ({value.low:.3f} to {value.high:.3f}), n = {value.n}"
            parts.append(
                f'<rect class="c{number % COLOURS}" x="{x + 1:.1f}" y="{y(value.mean):.1f}" width="{width - 2:.1f}" '
                f'height="{max(0.0, y(0) - y(value.mean)):.1f}"><title>{escape(told)}</title></rect>'
            )
            centre = x + width / 2
            parts.append(
                f'<line class="whisker" x1="{centre:.1f}" x2="{centre:.1f}" y1="{y(value.low):.1f}" y2="{y(value.high):.1f}"/>'
            )
    return "".join((*parts, "</svg>"))


def radar(title: str, axes: Sequence[str], series: Mapping[str, Sequence[float | None]], *, top: float = 100.0) -> str:
    """One closed line a series over axes from 0 in the middle to `top` outside; an axis without a value breaks the line."""
    width, height, radius = *RADAR, 125.0
    middle, centre = width / 2, height / 2

    def at(axis: int, value: float) -> tuple[float, float]:
        angle = 2 * math.pi * axis / len(axes) - math.pi / 2
        reach = radius * value / top
        return middle + reach * math.cos(angle), centre + reach * math.sin(angle)

    def points(values: Sequence[float]) -> str:
        return " ".join("{:.1f},{:.1f}".format(*at(axis, value)) for axis, value in enumerate(values))

    parts = [_open(title, width, height)]
    for share in (0.2, 0.4, 0.6, 0.8, 1.0):
        parts.append(f'<polygon class="grid" points="{points([top * share] * len(axes))}"/>')
        x, y = at(0, top * share)
        parts.append(f'<text class="tick" x="{x + 4:.1f}" y="{y + 3:.1f}">{top * share:.0f}</text>')
    for axis, name in enumerate(axes):
        outer, label = at(axis, top), at(axis, top * 1.16)
        parts.append(f'<line class="grid" x1="{middle}" y1="{centre}" x2="{outer[0]:.1f}" y2="{outer[1]:.1f}"/>')
        anchor = "middle" if abs(label[0] - middle) < 20 else "start" if label[0] > middle else "end"
        parts.append(
            f'<text class="label" x="{label[0]:.1f}" y="{label[1]:.1f}" text-anchor="{anchor}">{escape(name)}</text>'
        )
    for number, (name, values) in enumerate(series.items()):
        known = [(axis, value) for axis, value in enumerate(values) if value is not None]
        if not known:
            continue
        path = " ".join("{:.1f},{:.1f}".format(*at(axis, value)) for axis, value in known)
        shape = "polygon" if len(known) == len(axes) else "polyline"
        told = ", ".join(f"{axes[axis]} {value:.1f}" for axis, value in known)
        parts.append(
            f'<{shape} class="line c{number % COLOURS}" points="{path}"><title>{escape(name)}: {escape(told)}</title></{shape}>'
        )
        parts += [
            '<circle class="dot c{}" cx="{:.1f}" cy="{:.1f}" r="2.5"/>'.format(number % COLOURS, *at(axis, value))
            for axis, value in known
        ]
    return "".join((*parts, "</svg>"))


def _open(title: str, width: int, height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>"
    )
