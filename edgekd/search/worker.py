"""One process that runs trials until there are enough: `python -m edgekd.search.worker JOB.json`.

JOB.json holds `recipe` and `target` (tables), `dataset`, `knowledge` and, for a warm start, `parent`
(directories), `folder`, `storage` and `study` (edgekd.search.study.Place), `told` (what the study is of),
`limits`, `trials`, `compiler` and `worker` (this process's name). While it lives it holds the lock of that
name in `folder`; it says a line of JSON on stdout for each look at a trial, and the error that ended it.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock

from edgekd.declaration import build
from edgekd.errors import ArtifactError, ConfigError, EdgekdError, UnsupportedOpError
from edgekd.recipe import Recipe
from edgekd.recipe.search import SearchParams
from edgekd.search import study as trials
from edgekd.search.fit import Pricer
from edgekd.search.space import Candidate, Space
from edgekd.search.study import Place
from edgekd.search.trial import Classroom, open_classroom, run_trial, trial_params
from edgekd.target import Target

MOST_IDLE = 200  # draws in a row that train nothing: none fits, or all are known


class Enough(Exception):
    """As many trials were begun as were asked for."""


@dataclass(frozen=True, eq=False)
class Worker:
    """What one process needs for its trials."""

    room: Classroom
    space: Space
    pricer: Pricer
    place: Place
    study: optuna.Study
    name: str
    trials: int

    @property
    def params(self) -> SearchParams:
        return self.room.recipe.search

    def run(self) -> None:
        """Trials until enough were begun. Ends early where MOST_IDLE draws in a row trained nothing."""
        idle = 0
        while trials.begun(self.study) < self.trials and idle < MOST_IDLE:
            before = len(trials.trained(self.study))
            number = len(self.study.get_trials(deepcopy=False))
            self.study.sampler = trials.sampler_of(self.params.sampler, self.room.recipe.seed, number)
            try:
                self.study.optimize(self._objective, n_trials=1)
            except Enough:
                return
            idle = 0 if len(trials.trained(self.study)) > before else idle + 1
        if idle == MOST_IDLE:
            say({"note": f"{MOST_IDLE} draws in a row brought no new student that fits; the space is small"})

    def _objective(self, trial: optuna.Trial) -> tuple[float, ...]:
        candidate = self.space.candidate(trials.suggested(trial, self.space))
        trial.set_user_attr("candidate", candidate.name)
        try:
            costs = self.pricer.costs(candidate)
        except UnsupportedOpError as error:
            raise optuna.TrialPruned(str(error)) from None
        figures = tuple(float(costs[name]) for name in (self.params.cost, *trials.COSTS))
        trial.set_user_attr("costs", costs)
        trial.set_user_attr("figures", figures)
        for name, much in self.pricer.excess(costs).items():
            trial.set_constraint(name, much)
        if self.pricer.broken_by(costs):
            return 0.0, *figures
        known = trials.known_values(self.study, candidate.name)
        if known is not None:
            return tuple(known)
        self._claim(trial)
        try:
            return self._trained(trial, candidate, figures), *figures
        except optuna.TrialPruned:
            raise
        except BaseException:  # stopped by hand, or nobody listens: another process takes it up
            trials.enqueue_again(self.study, self.study.get_trials(deepcopy=False)[trial.number])
            raise

    def _claim(self, trial: optuna.Trial) -> None:
        """Count this trial in. Raises Enough where others have taken the last one meanwhile."""
        with FileLock(self.place.folder / "claim.lock"):
            if trials.begun(self.study) >= self.trials:
                raise Enough
            trial.set_user_attr("worker", self.name)
            trial.set_user_attr("curve", [])
            trial.set_user_attr("trained", True)

    def _trained(self, trial: optuna.Trial, candidate: Candidate, figures: tuple[float, ...]) -> float:
        epochs = trial_params(self.room.recipe).epochs
        curve: list[tuple[int, float]] = []
        done = f"trial {trial.number}"
        say({"progress": [done, 0, epochs]})

        def told(epoch: int, accuracy: float) -> None:
            curve.append((epoch, accuracy))
            trial.set_user_attr("curve", curve)
            say({"progress": [f"{done}: accuracy {accuracy:.3f}", epoch, epochs]})
            if self.params.margin and 4 * epoch >= epochs:
                self._stop_where_beaten(trial.number, figures, epoch, accuracy)

        accuracy = run_trial(self.room, candidate, told)
        say({"progress": [f"{done}: accuracy {accuracy:.3f}", epochs, epochs]})
        return accuracy

    def _stop_where_beaten(
        self, number: int, figures: tuple[float, ...], epoch: int, accuracy: float
    ) -> None:
        better = trials.beaten(self.study, number, figures, epoch, accuracy)
        other = accuracy + better
        spread = (accuracy * (1 - accuracy) + other * (1 - other)) / self.room.judged
        if better > self.params.margin * math.sqrt(max(spread, 1e-12)):
            say({"progress": [f"trial {number}: stopped", 1, 1]})
            raise optuna.TrialPruned


def say(table: Mapping[str, Any]) -> None:
    """A line of JSON; where nobody listens any more this raises, and the process ends."""
    print(json.dumps(table), flush=True)


def read_worker(path: Path) -> Worker:
    """What the job in file `path` describes. Raises ArtifactError for one that is not readable."""
    try:
        table = json.loads(path.read_text("utf-8"))
        recipe = build(Recipe, table["recipe"], str(path), "recipe")
        target = build(Target, table["target"], str(path), "target")
        place = Place(Path(table["folder"]), str(table["storage"]), str(table["study"]))
        parent = Path(table["parent"]) if table.get("parent") else None
        dataset, knowledge = Path(table["dataset"]), Path(table["knowledge"])
        compiler, limits, told = table["compiler"], table["limits"], table["told"]
        name, count = str(table["worker"]), int(table["trials"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is not a readable job ({error}); run `invoke search` again") from None
    room = open_classroom(dataset, knowledge, recipe, parent)
    pricer = Pricer(target, compiler, room.input_shape, room.classes, limits)
    study = trials.open_study(place, told)
    return Worker(room, Space(recipe.search), pricer, place, study, name, count)


def main(arguments: list[str]) -> int:
    """Run the job; 0, or an error's exit code."""
    try:
        if len(arguments) != 1:
            raise ConfigError("this takes one argument: a job's .json file")
        worker = read_worker(Path(arguments[0]))
        with FileLock(trials.lock_of(worker.place.folder, worker.name)):
            worker.run()
    except EdgekdError as error:
        say({"error": [type(error).__name__, str(error)]})
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
