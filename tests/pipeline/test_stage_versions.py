"""A stage whose code changed must have another version: else a store would serve old results as new."""

from __future__ import annotations

import json

import pytest

from edgekd.pipeline.stages import STAGES
from tests.stage_closure import COMMITTED, closure, digests

NEW = digests()


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_the_committed_digest_is_the_codes(stage: str) -> None:
    committed = json.loads(COMMITTED.read_text("utf-8"))
    assert committed.get(stage) == NEW[stage], (
        f"the code behind stage {stage!r} changed: raise its version in edgekd/pipeline/stages.py "
        "(or not, if no byte of its result can change), then run python tests/stage_closure.py"
    )


def test_the_closure_reaches_what_decides_the_result() -> None:
    _, teacher = closure(STAGES["teacher"].run)
    assert {"edgekd.learn.teacher", "edgekd.learn.training", "edgekd.data.augment"} <= set(teacher)
    _, build = closure(STAGES["build"].run)
    assert {"edgekd.mcu.firmware", "edgekd.mcu.toolchain"} <= set(build)
    assert "edgekd.learn.teacher" not in build
