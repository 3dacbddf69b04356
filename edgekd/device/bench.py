"""Measuring the current release on a Linux device: the pieces of a bench record that a device can tell."""

from __future__ import annotations

from typing import Any

from edgekd.device.deploy import device_path
from edgekd.device.session import AgentSession
from edgekd.device.transport import Transport
from edgekd.errors import ConfigError, VerifyError
from edgekd.evaluate.record import spread
from edgekd.progress import Progress, silent
from edgekd.target import VARIANTS

AUTO = "auto"
# Of the agent's result, under the same names in the bench record.
TOLD = (
    "split",
    "samples",
    "latency_us",
    "load_us",
    "cold_start_us",
    "throughput_per_s",
    "peak_rss_bytes",
    "rss_rise_bytes",
    "noise",
    "energy",
    "emulated",
    "conditions",
    "selection",
    "tools",
)
_ANSWERS = {None: "auto", True: "yes", False: "no"}


def bench_device(
    transport: Transport,
    root: str,
    variant: str = AUTO,
    *,
    threads: int = 0,
    warmup: int = 20,
    runs: int = 300,
    max_seconds: float = 10.0,
    samples: int | None = None,
    emulated: bool | None = None,
    again: bool = False,
    expected_release: str | None = None,
    quiet_s: float = 240.0,
    total_s: float = 1800.0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Run the agent's bench on the current release under `root`.

    Args:
        variant: "auto", the device's own choice (made now, unless it made one for this release and its
            runtimes), or a name in VARIANTS, as far as the bundle has it.
        threads: of a named variant, 0 for 1; with "auto" the most that are tried, 0 for every core.
        runs, warmup, max_seconds: latency is taken over up to `runs` runs within `max_seconds`.
        samples: accuracy over this many of the bundle's samples, all when None.
        emulated: whether times say nothing there; None: as the device says itself.
        again: choose anew.
        expected_release: refuse to measure another release than this.
        quiet_s: how long the device may say nothing, as while it loads the runtime from a slow card.
        total_s: the whole call's deadline.

    Returns a dict with keys of the bench record; None for what could not be measured. `device` also holds
    release, golden and conditions; `variant` says what was measured, `selection` why.

    Raises VerifyError when a file on the device was changed or the outputs leave the golden tolerance,
    MissingDependencyError where nothing can run, DeviceError when the link fails.
    """
    if variant not in (AUTO, *VARIANTS):
        raise ConfigError(f"variant {variant!r} does not exist; use {AUTO}, {' or '.join(VARIANTS)}")
    arguments = ["bench", "--root", device_path(root), "--variant", variant, "--threads", str(threads)]
    arguments += ["--warmup", str(warmup), "--runs", str(runs), "--max-seconds", str(max_seconds)]
    arguments += ["--samples", str(samples or 0), "--emulated", _ANSWERS[emulated]]
    arguments += ["--again"] if again else []
    with AgentSession(transport, arguments, stall_s=quiet_s, total_s=total_s, progress=progress) as session:
        result = session.receive()
    if expected_release is not None and result["release"] != expected_release:
        raise VerifyError(
            f"{transport.name} runs {result['release']} and not {expected_release}; deploy again, then bench"
        )
    check_golden(transport.name, result["variant"], result["golden"])
    return as_record(result)


def check_golden(name: str, variant: str, golden: dict[str, Any]) -> None:
    """Refuse figures of a model that answers differently there than on the host."""
    if golden["within_tolerance"]:
        return
    worst = golden["max_difference_steps"]
    how = "answers no finite number" if worst is None else f"differs from the host by {worst:.3g} steps"
    raise VerifyError(
        f"{name}: the {variant} model {how} on the golden samples (allowed: {golden['tolerance_steps']}, "
        f"top-1 agreement {golden['agreement']:.3f}); try another version of its runtime there"
    )


def as_record(result: dict[str, Any]) -> dict[str, Any]:
    """The agent's result under the bench record's names."""
    golden, counts = result["golden"], result["instructions"]
    quality = {"accuracy": None} | ({result["metric"]: result["quality"]} if result["metric"] else {})
    return {key: result[key] for key in TOLD} | {
        **quality,
        "model_bytes": result["file_bytes"],
        "samples_on_device": result["samples"],
        "agreement": quality.get("agreement") if result["metric"] == "agreement" else golden["agreement"],
        "bit_exact": True if golden["exact"] else None,
        "instructions": spread(counts) | {"counted_samples": len(counts)} if counts else None,
        "variant": {key: result[key] for key in ("variant", "engine", "threads", "file")},
        "device": {**result["machine"], "release": result["release"], "golden": golden},
    }
