"""`invoke search`: the knowledge made, workers started and kept going, the front written, a student picked.

A search has a folder in the store, <store>/search/<key>/, named by all that decides what a trial gives:
journal.log (Optuna's, where no --storage is given), front.json and front.svg. Running it again goes on where
it was; trials of workers that were killed are run again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import tomllib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edgekd import errors
from edgekd.declaration import as_toml, told
from edgekd.errors import ConfigError, EdgekdError, MissingDependencyError
from edgekd.pipeline.graph import kept, make
from edgekd.pipeline.learning import training_tools
from edgekd.pipeline.processes import plain_tables
from edgekd.pipeline.request import Request
from edgekd.recipe import Recipe, alone
from edgekd.store import Artifact, canonical_json, write_atomically

if TYPE_CHECKING:
    from edgekd.search.fit import Pricer
    from edgekd.search.study import Place

MOST_DEATHS = 3  # in a row, without a trial trained between them
_BUDGETS = ("max_cycles", "max_instructions", "max_ram_bytes", "max_flash_bytes", "trials")


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for; None: as the recipe's [search] says. storage: a database's URL."""

    max_cycles: int | None = None
    max_instructions: int | None = None
    max_ram_bytes: int | None = None
    max_flash_bytes: int | None = None
    trials: int | None = None
    workers: int = 1
    storage: str = ""


@dataclass(frozen=True)
class Search:
    """One search: its recipe with what is wanted, what trials learn from, and where they are kept."""

    request: Request
    recipe: Recipe
    data: Artifact
    knowledge: Artifact
    parent: Artifact | None
    limits: Mapping[str, int]
    told: Mapping[str, Any]
    folder: Path
    storage: str

    @property
    def place(self) -> Place:
        from edgekd.search.study import Place

        return Place(self.folder, self.storage, f"edgekd-{self.folder.name}")

    def pricer(self) -> Pricer:
        from edgekd.data import load_dataset
        from edgekd.search.fit import Pricer

        data, target = load_dataset(self.data.path), self.request.need_target("mcu")
        shape = tuple(data.x.shape[1:])
        return Pricer(target, self.request.compiler, shape, len(data.classes), self.limits)

    def job(self, worker: str) -> dict[str, Any]:
        """JOB.json of edgekd.search.worker."""
        places = {"dataset": self.data, "knowledge": self.knowledge, "parent": self.parent}
        return {
            "recipe": plain_tables(asdict(alone(self.recipe))),
            "target": plain_tables(asdict(self.request.need_target("mcu"))),
            **{name: str(each.path.absolute()) for name, each in places.items() if each is not None},
            "folder": str(self.folder.absolute()),
            "storage": self.storage,
            "study": self.place.study,
            "told": self.told,
            "limits": dict(self.limits),
            "trials": self.recipe.search.trials,
            "compiler": self.request.compiler,
            "worker": worker,
        }


def prepare(request: Request, wanted: Wanted) -> Search:
    """Make data and knowledge, and find the search's place. Raises ConfigError for what cannot be."""
    if importlib.util.find_spec("optuna") is None:
        raise MissingDependencyError("search needs optuna; install it with: pip install 'edgekd[search]'")
    from edgekd.search.fit import limits_of

    own = {name: getattr(wanted, name) for name in _BUDGETS if getattr(wanted, name) is not None}
    recipe = request.need_recipe()
    recipe = replace(recipe, search=replace(recipe.search, **own))
    if recipe.distill.hints:
        raise ConfigError(
            f"recipe {recipe.name}: a search has no live teacher; leave hints out of distill.loss"
        )
    target = request.need_target("mcu")
    asked = {name.removeprefix("max_"): getattr(recipe.search, name) for name in _BUDGETS if name != "trials"}
    limits = limits_of(target, asked)
    data, knowledge = make(request, "dataset"), make(request, "knowledge")
    parent = kept(request, "distill") if recipe.search.warm_start else None
    what = {
        "search": {k: v for k, v in told(recipe.search).items() if k != "trials"},
        "tables": {name: told(getattr(recipe, name)) for name in ("distill", "quantize")},
        "plain": {name: getattr(recipe, name) for name in ("seed", "threads", "device", "precision")},
        "branches": recipe.student.branches,
        "inputs": [data.digest, knowledge.digest, parent.digest if parent else ""],
        "target": plain_tables(asdict(target)) | {"compiler": request.compiler},
        "limits": limits,
        "tools": training_tools(request),
    }
    told_of = json.loads(json.dumps(what))
    key = hashlib.sha256(canonical_json(told_of)).hexdigest()[:16]
    folder = request.store.root / "search" / key
    folder.mkdir(parents=True, exist_ok=True)
    return Search(request, recipe, data, knowledge, parent, limits, told_of, folder, wanted.storage)


def run(request: Request, wanted: Wanted, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the search to its number of trials; its result (edgekd.search.study.result_of) with "folder".

    say: told, in a sentence, what a user should know while it runs. Raises BudgetError where nothing fits.
    """
    search = prepare(request, wanted)
    from edgekd.search import study as trials
    from edgekd.search.fit import fitting_point
    from edgekd.search.space import Space

    dead, alive = trials.workers_of(search.folder)
    if search.place.is_journal and not alive:
        trials.heal(search.folder)
    study, space = trials.open_study(search.place, search.told), Space(search.recipe.search)
    again = trials.fail_lost(study, dead)
    trials.forget(search.folder, dead)
    if again:
        say(f"{again} running trial{'s' * (again > 1)} of an earlier run had no process any more: run again")
    if trials.begun(study) < search.recipe.search.trials:
        if not study.get_trials(deepcopy=False):
            study.enqueue_trial(trials.parameters(fitting_point(space, search.pricer()), space))
        _Crew(search, wanted.workers, say).work()
    return result(search)


def result(search: Search) -> dict[str, Any]:
    """What the storage holds now; also written as front.json and front.svg in the search's folder."""
    from edgekd.search import study as trials
    from edgekd.search.plot import front_svg

    pricer, cost = search.pricer(), search.recipe.search.cost
    most = search.limits.get(cost) or pricer.student_costs(search.recipe.student)[cost]
    reference = (
        1 - 1 / pricer.classes,
        *(float(v) for v in (most, *(search.limits[n] for n in trials.COSTS))),
    )
    found = trials.result_of(trials.open_study(search.place, search.told), cost, reference)
    found |= {"limits": dict(search.limits), "folder": str(search.folder)}
    found |= {"input_shape": list(pricer.input_shape), "classes": pricer.classes}
    (search.folder / "front.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    (search.folder / "front.svg").write_text(front_svg(found), "utf-8")
    return found


class _Crew:
    """The workers of one run: each is watched by a thread, and replaced where it dies."""

    def __init__(self, search: Search, workers: int, say: Callable[[str], None]) -> None:
        self._search, self._workers, self._say = search, workers, say
        self._lock = threading.Lock()
        self._deaths = 0
        self._failure: EdgekdError | None = None
        self._is_over = False
        self._processes: dict[str, subprocess.Popen[str]] = {}

    def work(self) -> None:
        """Until every worker has ended. Raises the error that stopped them."""
        threads = [threading.Thread(target=self._seat, daemon=True) for _ in range(self._workers)]
        with tempfile.TemporaryDirectory(prefix="edgekd-") as jobs:
            self._jobs = Path(jobs)
            try:
                for thread in threads:
                    thread.start()
                for thread in threads:
                    while thread.is_alive():
                        thread.join(0.2)
            finally:
                self._is_over = True
                for process in list(self._processes.values()):
                    process.kill()
        if self._failure:
            raise self._failure

    def _seat(self) -> None:
        """One worker after the other until one ends well."""
        while self._failure is None:
            name = uuid.uuid4().hex[:12]
            code, last = self._run(name)
            if code == 0 or self._failure or self._is_over:
                return
            with self._lock:
                self._replace(name, code, last)

    def _replace(self, name: str, code: int, last: str) -> None:
        from edgekd.search import study as trials

        self._deaths += 1
        how = f"signal {-code}" if code < 0 else f"exit code {code}{': ' * bool(last)}{last[:160]}"
        if self._deaths >= MOST_DEATHS:
            self._failure = EdgekdError(
                f"{MOST_DEATHS} search workers died in a row ({how}); run again to go on with the next trial"
            )
            return
        again = trials.fail_lost(trials.open_study(self._search.place, self._search.told), [name])
        trials.forget(self._search.folder, [name])
        self._say(
            f"a search worker died ({how}); {'its trial is run again by another' if again else 'replaced'}"
        )

    def _run(self, name: str) -> tuple[int, str]:
        """(exit code, last line on stderr) of one worker."""
        job = self._jobs / f"{name}.json"
        job.write_text(json.dumps(self._search.job(name)), "utf-8")
        package = str(Path(errors.__file__).parent.parent)
        path = os.pathsep.join(each for each in (package, os.environ.get("PYTHONPATH")) if each)
        threads = str(self._search.recipe.threads)
        environment = os.environ | {"OMP_NUM_THREADS": threads, "PYTHONPATH": path}
        command = [sys.executable, "-m", "edgekd.search.worker", str(job)]
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
            process = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=said, text=True
            )
            self._processes[name] = process
            assert process.stdout is not None
            self._follow(process.stdout)
            code = process.wait()
            del self._processes[name]
            said.seek(0)
            return code, (said.read().strip().splitlines() or [""])[-1]

    def _follow(self, lines: IO[str]) -> None:
        for line in lines:
            try:
                table = json.loads(line)
            except ValueError:
                continue  # a library's own word
            if "progress" in table:
                self._deaths = 0 if table["progress"][1] else self._deaths
                self._search.request.progress(*table["progress"])
            elif "note" in table:
                self._say(table["note"])
            elif "error" in table:
                kind, message = table["error"]
                self._failure = getattr(errors, kind, EdgekdError)(message)


def write_pick(request: Request, found: Mapping[str, Any], which: str, source: Path, out: Path) -> Path:
    """Write the recipe `source` with the student of a trial in it as `out`; all else stays as it is there.

    which: as `picked` takes it. Raises ConfigError for a trial that is not there, or no .toml.
    """
    from edgekd.search.space import candidate_of
    from edgekd.search.study import picked

    if out.suffix != ".toml":
        raise ConfigError(f"--out is {out}; a recipe is a .toml file: recipes/NAME.toml")
    recipe = request.need_recipe()
    row = picked(found, which, recipe.gate.max_accuracy_drop)
    candidate = candidate_of(row["candidate"])
    table = tomllib.loads(source.read_text("utf-8"))
    structure = candidate.structure(found["input_shape"], found["classes"])
    table["name"] = out.stem
    table["description"] = f"trial {row['trial']} of a search with {recipe.name}: {row['what']}"
    table.pop("search", None)
    table["student"] = {
        "model": "blocks",
        "max_weight_bytes": structure.weight_bytes,
        "max_macs": structure.macs,
        "branches": recipe.student.branches,
        "blocks": [told(block) for block in candidate.blocks],
    }
    bits = candidate.layer_bits(found["input_shape"][0])
    if bits:
        rows = [{"layer": f"layers.{index}.conv", "bits": count} for index, count in bits.items()]
        table["quantize"] = {**table.get("quantize", {}), "layer_bits": rows}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, as_toml(table).encode())
    return out
