"""Making an artifact: a request and a stage's name in, the artifact out.

Everything it depends on is made first unless the store has it; nothing else is. Behind each stage of a
recipe that makes a model stands the gate: its evaluation is made, and a model that fails stops the chain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgekd.pipeline import evaluating
from edgekd.pipeline.request import Job, Request, Stage, Wanted
from edgekd.pipeline.stages import STAGES
from edgekd.recipe import TeacherParams
from edgekd.store import Artifact, Origin


def make(request: Request, stage_name: str, *, gated: bool = True) -> Artifact:
    """The artifact of `stage_name` for `request`; makes what is missing, in order.

    `request.again` makes the named stage anew (its inputs stay). gated: stop where a model fails the gate.
    Raises EdgekdError.
    """
    return _make(request, STAGES[stage_name], {}, gated, again=request.again)


@dataclass(frozen=True)
class StageState:
    """One row of `graph`: whether the artifact is there, and what it took to make it."""

    stage: str
    inputs: tuple[str, ...]
    artifact: Artifact | None
    seconds: float | None


def states(request: Request, stage_name: str) -> list[StageState]:
    """Every stage that `stage_name` depends on, in order, it and its gate last. Makes nothing."""
    found: dict[Place, StageState] = {}
    _look(request, STAGES[stage_name], found)
    return list(found.values())


def kept(request: Request, stage_name: str) -> Artifact | None:
    """The artifact of `stage_name`, where the store has it. Makes nothing."""
    return next(state.artifact for state in states(request, stage_name) if state.stage == stage_name)


def provenance(request: Request, artifact: Artifact) -> Iterator[tuple[int, Artifact | Mapping[str, Any]]]:
    """Walk from `artifact` to all it was made from: (depth, artifact, or its row if gone)."""
    pending: list[tuple[int, str, Mapping[str, Any]]] = []
    yield 0, artifact
    pending.extend((1, role, row) for role, row in sorted(artifact.manifest["inputs"].items(), reverse=True))
    seen: set[str] = set()
    while pending:
        depth, _, row = pending.pop()
        path = request.store.root / "artifacts" / row["stage"] / row["key"]
        if not path.is_dir():
            yield depth, row
            continue
        found = request.store.read(path)
        yield depth, found
        if found.key not in seen:
            seen.add(found.key)
            inputs = sorted(found.manifest["inputs"].items(), reverse=True)
            pending.extend((depth + 1, role, inner) for role, inner in inputs)


def _asked(request: Request, wanted: Wanted) -> tuple[Request, Stage]:
    """The request and the stage that an input is made by."""
    of, name = (request, wanted) if isinstance(wanted, str) else (wanted[1], wanted[0])
    return of, STAGES[name]


# A stage by its name; teachers, of which there may be several, by what they are besides.
Place = tuple[str, TeacherParams | None]


def _place(request: Request, stage: Stage) -> Place:
    return stage.name, request.recipe.teacher if request.recipe and stage.name == "teacher" else None


def _make(
    request: Request, stage: Stage, made: dict[Place, Artifact], gated: bool, again: bool = False
) -> Artifact:
    place = _place(request, stage)
    if place in made:
        return made[place]
    wanted = stage.inputs(request)
    inputs = {role: _make(*_asked(request, each), made, gated) for role, each in wanted.items()}
    origin = _origin(request, stage, inputs)
    artifact = None if again else request.store.find(origin)
    if artifact is None:
        for input_artifact in inputs.values():
            input_artifact.verify()
        request.progress(stage.name, 0, 1)
        artifact = request.store.make(
            origin,
            lambda out: stage.run(Job(request, inputs, out, origin)),
            again=again,
            waiting=lambda what: request.progress(f"{what}: another run is at it, waiting", 0, 1),
        )
        request.store.discard_work(f"{stage.name}-{origin.key}")
        request.progress(stage.name, 1, 1)
    made[place] = artifact
    judged = evaluating.judge_of(request, stage.name)
    if judged and gated:
        evaluation = _make(request, STAGES[judged.by], made, gated)
        evaluating.check(request, stage.name, artifact, evaluation)
    return artifact


def _look(request: Request, stage: Stage, found: dict[Place, StageState]) -> StageState:
    place = _place(request, stage)
    if place in found:
        return found[place]
    before = {r: _look(*_asked(request, each), found) for r, each in stage.inputs(request).items()}
    artifact = None
    known = {role: state.artifact for role, state in before.items() if state.artifact is not None}
    if len(known) == len(before):
        artifact = request.store.find(_origin(request, stage, known))
    seconds = request.store.seconds(artifact) if artifact else None
    found[place] = StageState(stage.name, tuple(s.stage for s in before.values()), artifact, seconds)
    judged = evaluating.judge_of(request, stage.name)
    if judged:
        _look(request, STAGES[judged.by], found)
    return found[place]


def _origin(request: Request, stage: Stage, inputs: Mapping[str, Artifact]) -> Origin:
    return Origin(
        stage=stage.name,
        version=stage.version,
        params=stage.params(request),
        inputs={role: (a.stage, a.key, a.digest) for role, a in inputs.items()},
        tools=stage.tools(request),
    )
