"""The mixtures of a set as one page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence

from catalog.mixtures import StageFacts
from catalog.report_words import one_line
from catalog.view import View


def render_mixtures(view: View, name: str, stages: Sequence[StageFacts]) -> str:
    """The page of a set: per stage what every part asked for and reached."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("catalog"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"line": one_line, "num": lambda value: f"{value:,}"}
    page = environment.get_template("mixtures.html.j2").render(
        name=name,
        snapshot=view.snapshot.number,
        stages=stages,
        stale={stage.name: stage.stale(view) for stage in stages},
        widest={stage.name: max(max(part.asked, part.reached) for part in stage.parts) for stage in stages},
    )
    return page + "\n"
