"""The experts report as one HTML file that needs nothing else: a heat map of the load, and what each expert reads."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from retriever.eval.report.page import Section, page, paragraph

if TYPE_CHECKING:
    from retriever.experts.report import ExpertProfile, ExpertsReport, LayerReport, Typical

__all__ = ["expert_name", "experts_html"]

IN_CONTEXT = 6
STYLE = """
.scroll { overflow-x: auto; }
.scroll table { border-collapse: separate; border-spacing: 3px; }
.scroll th, .scroll td { border: 0; text-align: center; } .scroll th { padding: .3rem .2rem; white-space: normal; }
.scroll th[scope=row] { text-align: left; }
td.heat { min-width: 2.6rem; padding: .75rem .1rem; border-radius: 5px; font-size: .85rem; }
td.bits { padding: 0 .6rem; min-width: 6.5rem; font-size: .85rem; }
.meter { display: block; height: 7px; border-radius: 4px; background: var(--rule); position: relative;
  margin-top: 3px; }
.meter i { position: absolute; inset: 0 auto 0 0; border-radius: 4px; background: var(--c0); }
.meter u { position: absolute; top: -3px; bottom: -3px; width: 2px; background: var(--ink); opacity: .55; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(265px, 1fr)); gap: .9rem; margin-top: .8rem; }
.card { background: var(--raised); border: 1px solid var(--rule); border-radius: 9px; padding: .9rem 1rem 1rem; }
.card h3 { margin: 0; }
.head { white-space: nowrap; display: flex; justify-content: space-between; align-items: baseline; gap: 1rem; }
.chips { display: flex; flex-wrap: wrap; gap: 4px; margin: .75rem 0 .6rem; padding: 0; list-style: none; }
.chips li { background: var(--rule); border-radius: 4px; padding: 0 .45em; font-size: .88rem; overflow-wrap: anywhere; }
.chips small { color: var(--soft); }
.context { margin: 0; padding: 0; list-style: none; font-size: .86rem; color: var(--soft); }
.context li { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; } .context b { color: var(--ink); }
"""
"""What the page has beyond the style of all reports."""


def experts_html(report: ExpertsReport) -> str:
    """Return the whole page."""
    routed = max(len(layer.load) for layer in report.layers)
    joined = any(len(profile.experts) > 1 for layer in report.layers for profile in layer.profiles)
    note = (
        paragraph(
            "Experts joined by + got the very same tokens: slices of one copy, which training has not told apart."
        )
        if joined
        else ""
    )
    load = paragraph(
        f"Each cell is an expert's share of its layer's choices; {1 / routed:.1%} each would be even. "
        "The load's entropy says how many experts do the work, the router's how unsure it is about a single token; "
        f"both are at most {math.log2(routed):.2f} bits."
    )
    return page(
        f"Experts of {report.encoder}",
        f"MoE layers: {len(report.layers)}, of up to {routed} routed experts, {report.active} used for each token; "
        f"{report.tokens:,} tokens of {report.documents:,} documents of {report.corpus}",
        [
            Section("load", "Load", load + note + _heat_map(report)),
            *(_section(layer, report.field) for layer in report.layers),
        ],
        style=STYLE,
    )


def expert_name(profile: ExpertProfile) -> str:
    """Return "3", or "2+3" for experts that act as one."""
    return "+".join(map(str, profile.experts))


def layer_name(layer: LayerReport) -> str:
    """Return "Layer 3", or "Sparse head"."""
    return f"Layer {layer.layer}" if layer.layer.isdigit() else layer.layer.capitalize()


def _heat_map(report: ExpertsReport) -> str:
    routed = max(len(layer.load) for layer in report.layers)
    hottest = max(max(layer.load) for layer in report.layers)
    head = "".join(f'<th scope="col">{expert}</th>' for expert in range(routed))
    rows = []
    for layer in report.layers:
        cells = "".join(_heat(load, load / hottest) for load in layer.load)
        cells += "<td></td>" * (routed - len(layer.load))
        bits = "".join(
            f'<td class="bits">{value:.2f} bits{_meter(value / math.log2(routed) if routed > 1 else 0)}</td>'
            for value in (layer.load_entropy, layer.token_entropy)
        )
        rows.append(f'<tr><th scope="row">{layer_name(layer)}</th>{cells}{bits}</tr>')
    return (
        '<div class="scroll"><table><thead><tr><th scope="col"></th>'
        f'{head}<th scope="col">entropy of the load</th><th scope="col">entropy of the router</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _heat(load: float, share: float) -> str:
    # Never the full colour: the figure on it stays readable in light and dark.
    colour = f"color-mix(in oklab, var(--c1) {75 * share:.0f}%, var(--raised))"
    return f'<td class="heat" style="background:{colour}">{100 * load:.1f}%</td>'


def _meter(share: float, tick: float | None = None) -> str:
    mark = "" if tick is None else f'<u style="left:{100 * min(tick, 1):.1f}%"></u>'
    return f'<span class="meter"><i style="width:{100 * min(share, 1):.1f}%"></i>{mark}</span>'


def _section(layer: LayerReport, field: str) -> Section:
    cards = "".join(_card(profile, len(layer.load), field) for profile in layer.profiles)
    text = (
        "The most typical tokens of each expert, the most telling first, and how often it got them; then where the "
        "first ones stand."
    )
    return Section(
        f"layer-{layer.layer}".replace(" ", "-"),
        layer_name(layer),
        f'{paragraph(text, "soft")}<div class="cards">{cards}</div>',
    )


def _card(profile: ExpertProfile, routed: int, field: str) -> str:
    name = f"Expert{'s' if len(profile.experts) > 1 else ''} {expert_name(profile)}"
    even = len(profile.experts) / routed
    context = "".join(_in_context(token) for token in profile.tokens[:IN_CONTEXT])
    values = f'<p class="soft" style="margin:.7rem 0 0">{escape(field)}</p>{_chips(profile.values)}' if field else ""
    return (
        f'<section class="card"><div class="head"><h3>{name}</h3><span class="soft">{100 * profile.load:.1f}% of '
        f"choices</span></div>{_meter(profile.load, even)}{_chips(profile.tokens)}"
        f'<ul class="context">{context}</ul>{values}</section>'
    )


def _chips(found: tuple[Typical, ...]) -> str:
    if not found:
        return '<p class="soft">nothing stands out</p>'
    return f'<ul class="chips">{"".join(_chip(one) for one in found)}</ul>'


def _chip(one: Typical) -> str:
    title = f"{2**one.pmi:.1f} times as often as by chance ({one.pmi:.2f} bits)"
    return f'<li title="{title}">{escape(one.name)} <small>{one.count}</small></li>'


def _in_context(token: Typical) -> str:
    word = token.name.removeprefix("##")
    return f"<li>{escape(token.before)}<b>{escape(word)}</b>{escape(token.after)}</li>"
