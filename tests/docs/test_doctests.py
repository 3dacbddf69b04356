"""The documentation is held to the code: Python blocks run, plots are redrawn, links lead somewhere."""

from __future__ import annotations

import doctest
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from edgekd.evaluate import intervals

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")


def examples(page: Path) -> str:
    """The page's Python blocks with prompts, each on the line where it stands."""
    text, kept = page.read_text("utf-8"), []
    for block in BLOCK.finditer(text):
        if ">>>" in block[1]:
            line = text.count("\n", 0, block.start(1))
            kept += [""] * (line - len(kept)) + block[1].splitlines()
    return "\n".join(kept) + "\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_pages_examples_give_what_they_say(page: Path) -> None:
    test = doctest.DocTestParser().get_doctest(examples(page), {}, page.name, str(page), 0)
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=said.append)
    assert not said, "".join(said)


def test_the_chapters_have_examples() -> None:
    """Or the test above would see nothing at all."""
    for name in ("distillation", "quantization", "evaluation"):
        assert examples(ROOT / "docs" / "methods" / f"{name}.md").count(">>>") > 10


def test_docstrings_of_the_intervals() -> None:
    assert doctest.testmod(intervals).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target, _ in LINK.findall(page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def plots() -> ModuleType:
    spec = importlib.util.spec_from_file_location("methods_plots", ROOT / "docs" / "plots" / "methods.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_plots_are_what_their_script_draws() -> None:
    drawn = {name: draw().svg() for name, draw in plots().PLOTS.items()}
    assert {path.stem for path in (ROOT / "docs" / "plots").glob("*.svg")} == set(drawn)
    for name, text in drawn.items():
        assert (ROOT / "docs" / "plots" / f"{name}.svg").read_text("utf-8") == text, (
            f"{name}.svg is not what docs/plots/methods.py draws; run it"
        )
