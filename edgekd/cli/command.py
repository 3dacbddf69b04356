"""What every task is made with: its options (one table), the decorator, requests, JSON and advice.

Tasks parse, call `edgekd.api` and print. Results go to stdout, progress and advice to stderr.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from invoke import Collection, Task
from invoke.exceptions import Exit

from edgekd.errors import ConfigError, EdgekdError

# Every option, once: its default (a bool is a flag) and what it means.
OPTIONS: dict[str, tuple[str | bool, str]] = {
    "recipe": ("", "what to learn: a file of recipes/ (default: digits)"),
    "target": ("", "the device: a file of targets/ (`invoke targets` lists them)"),
    "model": ("", "your own .tflite or .onnx file, in place of a recipe"),
    "data": ("", "your own .npz with x and y (and x_calibration for a float model)"),
    "source": ("", "where the recipe's samples lie: a folder or .zip of images"),
    "log": ("", "a .csv that trainings append a line an epoch to, or a folder for TensorBoard"),
    "samples": ("", "use only the first N samples"),
    "compiler": ("", "clang (default, from PyPI) or gcc"),
    "optimize": ("", "speed (default), ram, flash or balanced: what the generated C is to spare"),
    "winograd": (False, "3 x 3 convolutions may take 3.6 times their weights' flash for speed"),
    "engine": ("", "unicorn or qemu (default: the target's)"),
    "variant": ("", "float, int8, litert or native on a Linux device (default: the fastest there)"),
    "to": (
        "",
        "user@host:port of a Linux device, a name or @group of the inventory, a comma between several",
    ),
    "inventory": ("", "the file that says which devices there are (default: the project's inventory.toml)"),
    "deadline": ("", "seconds that each device may take (default: 600)"),
    "rollback": (False, "go back to the release before the current one"),
    "service": (False, "let systemd serve the model there, and restart it"),
    "input": ("", "the file of one sample: .npy, .npz, .csv, .wav or an image"),
    "lines": ("", "how many lines to show, the newest (default: 50)"),
    "key": ("", "SSH key file (default: the agent's and ~/.ssh/config's)"),
    "ssh_config": ("", "SSH config file (default: ~/.ssh/config)"),
    "release": ("", "of Debian on a virtual device: bookworm (Python 3.11) or trixie (3.13)"),
    "cache": (
        "",
        "where images of virtual devices, or wheels, are kept (default: the user's cache directory)",
    ),
    "runtimes": ("", "onnxruntime, litert, tflite-runtime, a comma between them (default: all that fit)"),
    "port": (
        "",
        "of a virtual device's SSH here; with --service, of the device's loopback besides the socket",
    ),
    "store": ("", "where artifacts are kept (default: .edgekd/ of the project)"),
    "shared": ("", "a team's cache of artifacts: a folder or any fsspec URL"),
    "json": (False, "print the result as JSON"),
    "again": (False, "make the result anew although it is there"),
    "prefix": ("", "what the C's files and names begin with (default: model)"),
    "updatable": (False, "C whose weights can be replaced apart from its code, at a cost"),
    "out": ("", "the file to write"),
    "max_instructions": ("", "instructions of one inference, as 3M"),
    "trials": ("", "how many students to train (default: the recipe's)"),
    "workers": ("", "how many processes train them (default: 1)"),
    "storage": ("", "a database for the trials, as postgresql://..., for several machines"),
    "pick": ("", "write a recipe of one student: a trial's number, best or smallest"),
    "part": ("", "only these parts of the tests, a comma between them"),
    "no_skips": (False, "a skipped test is a failed test"),
    "seed": ("", "of a soak's random inputs"),
    "count": ("", "of a soak's inputs"),
    "devices": ("", "devices of a fleet (default: 1000)"),
    "tolerated": ("", "failure rate that a release may have, as 0.01 or 1% (default: 1%)"),
    "rates": ("", "failure rates to try, a comma between them (default: 0.5% to 100%)"),
    "canaries": ("", "devices that go first (default: 10)"),
    "max_failed": ("", "devices that a wave may be expected to lose (default: 1.5 x tolerated, 8 at least)"),
    "silent": ("", "share of devices that begin and never answer (default: 0)"),
    "absent": ("", "share of devices that never begin (default: 0)"),
    "runs": ("", "simulated rollouts at each rate (default: 200)"),
    "database": (
        "",
        "the rollouts' database: a file or SQLAlchemy URL (default: rollouts.db of the fleet)",
    ),
    "reports": ("", "folder of the devices' signed reports (default: reports/ of the fleet)"),
    "rollout": ("", "which rollout (default: the only open one)"),
    "every": ("", "seconds between two looks (default: 30)"),
    "once": (False, "look once and end"),
    "why": ("", "a reason, for the log"),
    "yes": (False, "yes to one wave that no bound allows"),
    "afresh": (False, "the environment was to blame: who failed tries again, all evidence so far is dropped"),
    "all_at_once": (False, "no canaries: every device may begin at once"),
    "resumes": (False, "an operator who resumes every pause: only evidence stops anything"),
    "fleet": ("", "the fleet's folder (default: fleet/ of the project)"),
    "name": ("", "what it is called"),
    "online_days": ("", "how long what the online key signs is valid: 7 (default) to 30"),
    "paper": ("", "the file of the keys' paper backup (default: paper.txt in the fleet's folder)"),
    "signer": ("", "URI of a key in an HSM, KMS or the like (securesystemslib's), in place of a file"),
    "public": ("", "PEM file of that key's public half"),
    "offline": (False, "all that expires, with the offline keys, too"),
    "models": ("", "models that a device runs, a comma between them (default: the inventory's)"),
    "url": ("", "the static host that devices ask (default: none, they are pushed to)"),
    "clock": (
        "",
        "synced: nothing is installed before a time service has set it (default with --url); system",
    ),
    "user": ("", "the login that a model on trial runs as, where the agent is root (default: the agent's)"),
    "report_url": (
        "",
        "where devices put their signed reports: http(s) for PUT, or file:/// (default: nowhere)",
    ),
    "restart": ("", "the program on the device that is told of a new release, {model} replaced"),
    "agent_root": ("", "where the agent lies on the device (default: edgekd-agent in the login's home)"),
    "where": ("", "which devices: KEY=PATTERN or KEY!=PATTERN, a comma between several"),
    "hardware": (
        "",
        "target profiles that the release may run on, a comma between them (default: the target)",
    ),
    "keys": ("", "names of keys to sign with, a comma between them (default: those here that are needed)"),
    "number": ("", "the release's number (default: the next one)"),
    "label": ("", "the release's name, for people"),
    "licence": ("", "the model's licence, an SPDX id or expression"),
    "bom": ("", "an ML-BOM of your own, CycloneDX in JSON"),
    "limits": ("", "TOML file of health limits"),
    "slot_bytes": ("", "room that a device keeps for a release of the model (default: 64 MiB)"),
    "publish": (False, "sign and publish it at once, with the keys that are here"),
    "strict": (False, "end with an error where there is a warning"),
    "to_fit": (False, "find the mildest methods that fit the target and pass the gate"),
    "max_flash": ("", "bytes of flash that a model may take (16k: 16,384; default: the target's)"),
    "max_ram": ("", "bytes of RAM that a model may take, stack included (default: the target's)"),
    "measure": (False, "build and run the builds of the front on the emulated core"),
    "max_cycles": ("", "modelled cycles that one inference may take (5M: 5,000,000)"),
}
MADE_FROM = ("recipe", "target", "model", "data", "source", "log", "samples")
COMMON = (*MADE_FROM, "compiler", "optimize", "winograd", "engine", "store", "shared", "json", "again")
LIBRARY = ("prefix", "updatable")
SSH = ("to", "key", "ssh_config")
FIT = ("to_fit", "max_flash", "max_ram", "max_cycles")
# Read by the tasks themselves.
NO_REQUEST = {
    *FIT,
    "json",
    "measure",
    "to",
    "samples",
    "out",
    "inventory",
    "deadline",
    "rollback",
    "service",
    "port",
    "input",
    "lines",
}
UPLOADED = ("uploaded_bytes", "resumed_bytes", "upload_s", "free_bytes")
DEPLOY_ROWS = ("release", "root", "releases", "removed", *UPLOADED)

Body = Callable[..., None]
ns = Collection()


def command(*options: str, positional: tuple[str, ...] = (), group: str = "") -> Callable[[Body], Body]:
    """Make a task of a function: its options from OPTIONS, its errors as one line and an exit code.

    group: the part in front of a dotted name, as in `device.up`.
    """

    def register(body: Body) -> Body:
        @functools.wraps(body)
        def run(context: Any, **given: Any) -> None:
            if context.config.run.dry:
                fail(
                    ConfigError(
                        "--dry would run the task all the same; leave it out (`invoke graph` shows the plan)"
                    )
                )
            guarded(lambda: body(**given))

        parameters = [inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        for name in positional:
            parameters.append(inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD))
        for name in options:
            default = OPTIONS[name][0]
            parameters.append(
                inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
            )
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        texts = {name: OPTIONS[name][1] for name in options}
        task: Task[Any] = Task(
            run, name=body.__name__, auto_shortflags=False, positional=positional, help=texts
        )
        _collection(group).add_task(task)
        return body

    return register


def _collection(group: str) -> Collection:
    if group and group not in ns.collections:
        ns.add_collection(Collection(group))
    return ns.collections[group] if group else ns


def guarded(work: Callable[[], None]) -> None:
    """Run `work`; every way out of it is a clean one: no traceback, the right exit code."""
    try:
        work()
        sys.stdout.flush()
    except EdgekdError as error:
        fail(error)
    except KeyboardInterrupt:
        print("stopped; run again to continue", file=sys.stderr)
        raise Exit(code=130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: say no more
        raise Exit(code=141) from None


def fail(error: EdgekdError) -> NoReturn:
    """Print the error's sentence and end with its exit code."""
    print(f"edgekd: {error}", file=sys.stderr)
    raise Exit(code=error.exit_code)


def number(text: str, option: str) -> int | None:
    """The option `--option` as a number from 1; None where it was not given."""
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ConfigError(f"--{option} is {text!r}; it must be a whole number from 1")
    return int(text)


def amount(text: str, option: str) -> int | None:
    """The option as bytes (16k: 16,384) or as a count (5M: 5,000,000); None where it was not given."""
    if not text:
        return None
    step = 1000 if option.endswith(("cycles", "instructions")) else 1024
    units = {"k": step, "M": step**2}
    factor = units.get(text[-1], 0)
    digits = text[:-1] if factor else text
    if not digits.isascii() or not digits.isdigit() or int(digits) < 1:
        raise ConfigError(
            f"--{option.replace('_', '-')} is {text!r}; it must be a whole number from 1, k or M behind it"
        )
    return int(digits) * (factor or 1)


def make_request(view: Any, given: dict[str, Any]) -> Any:
    """The request of the given options; `view` is told how the work goes."""
    from edgekd import api

    known = {k: v for k, v in given.items() if k not in NO_REQUEST}
    return api.request(**known, samples=number(given.get("samples", ""), "samples"), progress=view)


def advise(*lines: str) -> None:
    """Say on stderr what one may run next."""
    for line in lines:
        print(f"next: {line}", file=sys.stderr)


def warn(line: str) -> None:
    """Say on stderr what one should know while work goes on."""
    print(f"edgekd: {line}", file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """The result, for a program."""
    print(json.dumps(value, indent=1, sort_keys=False))
