"""The trials of a search: where they are kept, how the next is drawn, what counts, what the result is.

Optuna's storage holds all of it, so that several processes or machines work on one search and a killed one
goes on. A trial's user attributes: "candidate" (its name), "costs", "curve" ([epochs, accuracy] as it was
trained), "worker", "trained" (whether it was, or was begun).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from edgekd.data.randomness import torch_seed
from edgekd.errors import ArtifactError, ConfigError, EdgekdError
from edgekd.search.fit import described
from edgekd.search.front import Figures, front, hypervolume
from edgekd.search.space import Choice, Point, Space, candidate_of

JOURNAL = "journal.log"
COSTS = ("ram_bytes", "flash_bytes")  # beside the cost that the recipe names
_LOCK_GRACE_S = 10  # a journal is written in far less
_HEARTBEAT_S, _SILENT_S = 60, 180
_STARTUP = 10  # trials before a sampler models anything


@dataclass(frozen=True)
class Place:
    """Where trials are kept: a URL of a database, or "" for a journal in `folder`. study: its name there."""

    folder: Path
    storage: str
    study: str

    @property
    def is_journal(self) -> bool:
        return not self.storage


def open_study(place: Place, told: Mapping[str, Any]) -> optuna.Study:
    """The study at `place`, made where it is not there. told: what it is of, and must be of.

    Raises ArtifactError for a storage that cannot be read or reached, or holds another study of that name.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    where = place.storage or str(place.folder / JOURNAL)
    try:
        study = optuna.create_study(
            storage=_storage(place),
            study_name=place.study,
            directions=["maximize", "minimize", "minimize", "minimize"],
            load_if_exists=True,
        )
        known = study.user_attrs.get("told")
        if known is None:
            study.set_user_attr("told", json.loads(json.dumps(told)))
    except EdgekdError:
        raise
    except Exception as error:  # of whatever database lies behind a URL
        detail = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise ArtifactError(
            f"{_public(where)}: the search's storage cannot be read ({detail}); mend it, or take another "
            "--storage"
        ) from None
    if known is not None and known != json.loads(json.dumps(told)):
        raise ArtifactError(
            f"{_public(where)} holds another search of the name {place.study}; take another --storage"
        )
    return study


def _public(where: str) -> str:
    """A URL without its password."""
    head, at, tail = where.rpartition("@")
    return f"{head.split('//')[0]}//...@{tail}" if at and "//" in head else where


def _storage(place: Place) -> optuna.storages.BaseStorage:
    if place.is_journal:
        path = str(place.folder / JOURNAL)
        lock = JournalFileOpenLock(path, grace_period=_LOCK_GRACE_S)
        return optuna.storages.JournalStorage(JournalFileBackend(path, lock))
    return optuna.storages.RDBStorage(
        place.storage,
        heartbeat_interval=_HEARTBEAT_S,
        grace_period=_SILENT_S,
        heartbeat_stale_trial_callback=lambda study, trial: enqueue_again(study, trial),
    )


def heal(folder: Path) -> None:
    """Cut off a last line that a crash left unfinished; nobody may be writing."""
    path = folder / JOURNAL
    if path.is_file():
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            path.write_bytes(whole)


def sampler_of(name: str, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """The sampler of trial `number`: seeded for it, so that a search that goes on draws as it would have."""
    drawn = torch_seed(seed, "search", number) % (1 << 32)
    if name == "tpe":
        return optuna.samplers.TPESampler(n_startup_trials=_STARTUP, multivariate=True, seed=drawn)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(population_size=_STARTUP, seed=drawn)
    if name == "gp":
        return optuna.samplers.GPSampler(n_startup_trials=_STARTUP, seed=drawn)
    return optuna.samplers.RandomSampler(seed=drawn)


def suggested(trial: optuna.Trial, space: Space) -> dict[str, Choice]:
    """A point of the space; numbers by their place among the choices, so that neighbours are near."""
    point: dict[str, Choice] = {}
    for name, choices in space.dimensions.items():
        if len(choices) == 1:
            point[name] = choices[0]
        elif isinstance(choices[0], str):
            point[name] = str(trial.suggest_categorical(name, list(choices)))
        else:
            point[name] = choices[trial.suggest_int(name, 0, len(choices) - 1)]
    return point


def parameters(point: Point, space: Space) -> dict[str, Any]:
    """What `suggested` would have been given for this point."""
    return {
        name: point[name] if isinstance(choices[0], str) else choices.index(point[name])
        for name, choices in space.dimensions.items()
        if len(choices) > 1
    }


def enqueue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Have the parameters of a lost trial tried once more."""
    if trial.params:
        study.enqueue_trial(trial.params)


def fail_lost(study: optuna.Study, workers: Sequence[str]) -> int:
    """End the running trials of workers that are gone, and have them tried again; how many there were."""
    lost = [t for t in running(study) if t.user_attrs.get("worker") in workers]
    for trial in lost:
        study.tell(trial.number, state=TrialState.FAIL)
        enqueue_again(study, trial)
    return len(lost)


def lock_of(folder: Path, worker: str) -> Path:
    """The file that a worker holds locked while it lives."""
    return folder / f"{worker}.alive"


def workers_of(folder: Path) -> tuple[list[str], list[str]]:
    """(dead, alive): the workers that this folder knows; those whose lock is free have gone."""
    dead, alive = [], []
    for path in sorted(folder.glob("*.alive")):
        try:
            with FileLock(path, timeout=0):
                dead.append(path.stem)
        except Timeout:
            alive.append(path.stem)
    return dead, alive


def forget(folder: Path, workers: Sequence[str]) -> None:
    for worker in workers:
        lock_of(folder, worker).unlink(missing_ok=True)


def running(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def trained(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that were trained to their end, or stopped early: those that count."""
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    return [t for t in study.get_trials(deepcopy=False, states=states) if t.user_attrs.get("trained")]


def begun(study: optuna.Study) -> int:
    """Trials that count, and those that are being trained."""
    return len(trained(study)) + sum(bool(t.user_attrs.get("trained")) for t in running(study))


def known_values(study: optuna.Study, name: str) -> list[float] | None:
    """The values of an earlier trial of the candidate `name`."""
    for trial in trained(study):
        if trial.user_attrs["candidate"] == name and trial.state == TrialState.COMPLETE:
            return list(trial.values)
    return None


def beaten(study: optuna.Study, trial_number: int, costs: Figures, step: int, accuracy: float) -> float:
    """By how much the best of the trials that cost no more anywhere was better at `step`; 0 for none."""
    best = 0.0
    for other in study.get_trials(deepcopy=False):
        known = other.user_attrs.get("costs")
        if other.number == trial_number or not known or not other.user_attrs.get("trained"):
            continue
        if all(a <= b for a, b in zip(known_costs(other), costs, strict=True)):
            best = max([best, *(value - accuracy for at, value in other.user_attrs["curve"] if at == step)])
    return best


def known_costs(trial: FrozenTrial) -> Figures:
    return tuple(float(value) for value in trial.user_attrs["figures"])


def rows_of(study: optuna.Study) -> Iterator[dict[str, Any]]:
    """Each trained student once: {"trial", "accuracy", "stopped", "costs", "candidate", "what"}, by trial."""
    seen = set()
    for trial in sorted(trained(study), key=lambda t: t.number):
        name = trial.user_attrs["candidate"]
        if name not in seen:
            seen.add(name)
            stopped = trial.state == TrialState.PRUNED
            yield {
                "trial": trial.number,
                "accuracy": None if stopped else trial.values[0],
                "stopped": stopped,
                "costs": trial.user_attrs["costs"],
                "candidate": name,
                "what": described(candidate_of(name)),
            }


def result_of(study: optuna.Study, cost: str, reference: Figures) -> dict[str, Any]:
    """The front and its hypervolume, each figure as a share of `reference` (1 - accuracy, cost, RAM, flash).

    Returns {"study", "cost", "reference", "trials", "stopped", "unfit", "rows", "front", "hypervolume"};
    front: numbers of trials, the most accurate first.
    """
    rows = list(rows_of(study))
    done = [row for row in rows if not row["stopped"]]
    points = [figures_of(row, cost) for row in done]
    kept = sorted((done[i] for i in front(points)), key=lambda row: (-row["accuracy"], row["costs"][cost]))
    shares = [tuple(v / r for v, r in zip(point, reference, strict=True)) for point in points]
    every = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return {
        "study": study.study_name,
        "cost": cost,
        "reference": list(reference),
        "trials": len(trained(study)),
        "stopped": sum(row["stopped"] for row in rows),
        "unfit": sum(1 for t in every if not t.user_attrs.get("trained") and "costs" in t.user_attrs),
        "rows": rows,
        "front": [row["trial"] for row in kept],
        "hypervolume": hypervolume(shares, (1.0,) * len(reference)),
    }


def figures_of(row: Mapping[str, Any], cost: str) -> Figures:
    """(1 - accuracy, cost, RAM, flash) of a row."""
    return (1 - row["accuracy"], *(float(row["costs"][name]) for name in (cost, *COSTS)))


def picked(result: Mapping[str, Any], wanted: str, tolerance: float) -> dict[str, Any]:
    """The row of a trial: by its number; "best", the most accurate; "smallest", the least flash on the
    front that are at most `tolerance` less accurate. Raises ConfigError."""
    rows: dict[int, dict[str, Any]] = {row["trial"]: row for row in result["rows"] if not row["stopped"]}
    if not rows:
        raise ConfigError("the search has no trained student yet; run more trials")
    on_front = [rows[number] for number in result["front"]]
    if wanted == "best":
        return on_front[0]
    if wanted == "smallest":
        near = [row for row in on_front if row["accuracy"] >= on_front[0]["accuracy"] - tolerance]
        return min(near, key=lambda row: row["costs"]["flash_bytes"])
    if not wanted.isdigit() or int(wanted) not in rows:
        known = ", ".join(map(str, result["front"]))
        raise ConfigError(
            f"--pick is {wanted!r}; it must be best, smallest or a trial's number: {known} lie on the front"
        )
    return rows[int(wanted)]
