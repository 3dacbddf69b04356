"""The agent's command line: one command a run; every failure is one error message and exit status 1."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import json
import platform
from collections.abc import Callable
from pathlib import Path

from .messages import AUTO, AgentError, emit

DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


def status(arguments: argparse.Namespace) -> None:
    """Say what the directory holds and what this device is."""
    from .install import describe_root
    from .machine import machine

    root = Path(arguments.root)
    if not root.is_dir():
        raise AgentError("empty", f"{root} holds no release; deploy first")
    told = {"machine": machine(), "python": platform.python_version(), "input_shape": input_shape(root)}
    emit("result", **describe_root(root), **told)


def input_shape(root: Path) -> list[int] | None:
    """What the current release's model takes, [1, ...]; None without one."""
    try:
        bundle = json.loads((root / "current" / "bundle" / "bundle.json").read_text(encoding="utf-8"))
        return [int(extent) for extent in bundle["input"]["shape"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


# Module and function of each command. Only what is asked for is imported: Python compiles the modules of
# an archive anew in each process.
COMMANDS = {
    "bench": ("bench", "bench"),
    "choose": ("bench", "choose_variant"),
    "deploy": ("receive", "deploy"),
    "facts": ("facts", "facts"),
    "logs": ("back", "logs"),
    "provision": ("provision", "provision"),
    "rollback": ("back", "rollback"),
    "run": ("model", "run"),
    "serve": ("serve", "serve"),
    "service": ("service", "service"),
    "status": ("main", "status"),
    "worker": ("worker", "work"),
}


def command_of(name: str) -> Callable[[argparse.Namespace], None]:
    """The function of a command in COMMANDS."""
    module, function = COMMANDS[name]
    found: Callable[[argparse.Namespace], None] = getattr(
        importlib.import_module(f".{module}", __package__), function
    )
    return found


def parse(argv: list[str]) -> argparse.Namespace:
    """Arguments of one command."""
    parser = argparse.ArgumentParser(prog="agent.pyz", description="edgekd's part on a Linux device")
    parser.add_argument("command", choices=sorted(COMMANDS))
    for name, text in (("root", "edgekd"), ("bundle", ""), ("variant", AUTO), ("socket", "")):
        parser.add_argument(f"--{name}", default=text)
    counts = (("threads", 0), ("warmup", 20), ("runs", 300), ("samples", 0), ("lines", 50), ("port", 0))
    for name, default in counts:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--max-seconds", type=float, default=10.0)
    parser.add_argument("--emulated", choices=("auto", "yes", "no"), default="auto")
    parser.add_argument("--again", action="store_true", help="choose the variant anew")
    return parser.parse_args(argv)


def explain(error: OSError) -> AgentError:
    """An operating system error as a refusal with a sentence."""
    where = error.filename or "the device's directory"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return AgentError(
            "space", f"the device's disk is full (at {where}); free some space and deploy again"
        )
    if error.errno in DENIED:
        return AgentError(
            "denied", f"{where} cannot be written ({error.strerror}); set connection.root to another"
        )
    return AgentError("failed", f"{where}: {error.strerror or error}")


def main(argv: list[str]) -> int:
    """Run one command; every failure is one error message and exit status 1."""
    try:
        arguments = parse(argv)
        command_of(arguments.command)(arguments)
        return 0
    except AgentError as error:
        failure = error
    except OSError as error:
        failure = explain(error)
    except Exception as error:  # the runtime's own errors have many types; the host shows one line
        failure = AgentError(
            "failed", f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
        )
    with contextlib.suppress(BrokenPipeError):
        emit("error", kind=failure.args[0], message=failure.args[1])
    return 1
