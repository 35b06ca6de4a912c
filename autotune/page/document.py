"""A report as one HTML file that needs nothing else: data as JSON, plotly.js and our own script and styles inlined.

The page may not fetch anything (its content security policy says so), and shows all text as text: titles and messages
may come from a stranger's file.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from ..ir.errors import DeviceError
from .facts import Report

_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
_HERE = Path(__file__).parent
_BODY = """
<header><h1></h1><p id="about"></p></header>
<main>
<section id="tiles"></section>
<section class="wide"><h2>Roofline</h2><p class="hint">Each point is a kernel; a click opens its schedule, counts and
source. <span id="roof-note"></span></p><div id="roofline" class="plot tall"></div></section>
<section><h2>Time by kernel</h2><p class="hint" id="time-note"></p><div id="times" class="plot"></div></section>
<section><h2>Tuning</h2><p class="hint"><span id="tuning-note"></span> <button id="by-trial">by trial</button>
<button id="by-time">by time</button></p><div id="curves" class="plot"></div></section>
<section class="wide"><h2>What went into which kernel</h2><p class="hint">Boxes are kernels, the darker the longer they
take; arrows are arrays. <select id="which"></select></p><div id="graph"></div></section>
<section class="wide"><h2>Comparison</h2><div class="scroll"><table id="comparison"></table></div></section>
<section class="wide"><h2>Kernels</h2><div class="scroll"><table id="kernels"></table></div></section>
<section class="wide" id="rest-section"><h2>Outside of kernels</h2><div class="scroll"><table id="rest"></table></div>
</section>
<section class="wide"><h2>Environment</h2><ul id="notes"></ul><table id="environment"></table></section>
</main>
<aside id="kernel" hidden><button id="close" title="close (Esc)">&times;</button><h2></h2><p class="hint"></p>
<nav></nav><div id="trials" class="plot small"></div><pre tabindex="0"></pre></aside>
"""


@cache
def plotly_js() -> str:
    """plotly.js as the installed package carries it. Raises DeviceError where there is none."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise DeviceError("a report needs plotly: pip install 'autotune-kernels[report]'") from None
    return str(get_plotlyjs())


def html(report: Report) -> str:
    """The page. Raises DeviceError where plotly is not installed."""
    style, script = (_HERE.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(report.title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>\n{style}</style></head>\n<body>'
        f'{_BODY}<script type="application/json" id="data">{data(report)}</script>\n'
        f"<script>{plotly_js()}</script>\n<script>\n{script}</script></body></html>\n"
    )


def data(report: Report) -> str:
    """The report as JSON that may stand within a script element; what is no number is null."""
    text = json.dumps(_finite(asdict(report)), allow_nan=False, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [*map(_finite, value)]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value
