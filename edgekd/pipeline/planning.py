"""Looking at what the compiler would build, without compiling: the memory plan of a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.errors import ConfigError
from edgekd.pipeline.checking import int8_model
from edgekd.pipeline.request import Request
from edgekd.pipeline.shipping import mcu_options
from edgekd.store import write_atomically

if TYPE_CHECKING:
    from edgekd.qgraph.ir import QGraph


def plan_model(request: Request) -> dict[str, Any]:
    """The memory plan of the request's int8 model as its target's build would have it.

    Returns edgekd.mcu.plan_answer.tell's data with "target", "family" and "picture", the SVG's text. Raises
    ConfigError where a recipe has no int8 model in the store yet, UnsupportedOpError for what C cannot run.
    """
    from edgekd.mcu.codegen import generate
    from edgekd.mcu.dsp.family import family_of
    from edgekd.mcu.plan_answer import tell
    from edgekd.mcu.plan_picture import plan_svg

    target = request.need_target("mcu")
    assert target.core is not None
    family = family_of(target.core.cpu)
    found = tell(generate(stripped_graph(request), family, mcu_options(request)))
    return {"target": target.name, "family": family, **found, "picture": plan_svg(found)}


def drawn(make: Callable[[], dict[str, Any]], out: Path | None) -> dict[str, Any]:
    """What `make` gives without its "picture", which is written to `out`, whole or not at all.

    Raises ConfigError before anything is made where `out` is no .svg file or lies in no folder.
    """
    if out is not None and out.suffix != ".svg":
        raise ConfigError(f"--out is {str(out)!r}, and the picture is an SVG: name a file that ends in .svg")
    if out is not None and not out.parent.is_dir():
        raise ConfigError(f"{out.parent}: no such folder; make it, or name another file with --out")
    found = make()
    picture = found.pop("picture")
    if out is not None:
        write_atomically(out, picture.encode())
    return found


def stripped_graph(request: Request) -> QGraph:
    """The request's int8 model without float inputs and outputs: what C is generated from."""
    from edgekd.qgraph.edges import strip_float_edges
    from edgekd.qgraph.loader import load_graph

    return strip_float_edges(load_graph(*int8_model(request)))
