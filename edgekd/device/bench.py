"""Measuring the current release on a Linux device: the pieces of a bench record that a device can tell."""

from __future__ import annotations

from typing import Any

from edgekd.device.deploy import device_path
from edgekd.device.session import AgentSession
from edgekd.device.transport import Transport
from edgekd.errors import ConfigError, VerifyError
from edgekd.progress import Progress, silent

VARIANTS = ("int8", "float")


def bench_device(
    transport: Transport,
    root: str,
    variant: str = "int8",
    *,
    threads: int = 1,
    warmup: int = 20,
    runs: int = 300,
    max_seconds: float = 10.0,
    samples: int | None = None,
    expected_release: str | None = None,
    quiet_s: float = 120.0,
    total_s: float = 900.0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Run the agent's bench on the current release under `root`.

    Args:
        variant: "int8" or "float", as far as the bundle has it.
        runs, warmup, max_seconds: latency is taken over up to `runs` runs within `max_seconds`.
        samples: accuracy over this many of the bundle's samples, all when None.
        expected_release: refuse to measure another release than this.
        quiet_s: how long the device may say nothing, as while it loads the runtime from a slow card.
        total_s: the whole call's deadline.

    Returns a dict with keys of the bench record: split, samples, samples_on_device, accuracy, agreement,
    latency_us {p50, p90, p99, mean, n}, load_us, peak_rss_bytes, model_bytes, device, tools; None for what
    could not be measured. `device` also holds release, variant, threads, rss_rise_bytes and golden.

    Raises VerifyError when a file on the device was changed or the outputs leave the golden tolerance,
    MissingDependencyError without a runtime there, DeviceError when the link fails.
    """
    if variant not in VARIANTS:
        raise ConfigError(f"variant {variant!r} does not exist; use {' or '.join(VARIANTS)}")
    arguments = ["bench", "--root", device_path(root), "--variant", variant, "--threads", str(threads)]
    arguments += ["--warmup", str(warmup), "--runs", str(runs), "--max-seconds", str(max_seconds)]
    arguments += ["--samples", str(samples or 0)]
    with AgentSession(transport, arguments, stall_s=quiet_s, total_s=total_s, progress=progress) as session:
        result = session.receive()
    if expected_release is not None and result["release"] != expected_release:
        raise VerifyError(
            f"{transport.name} runs {result['release']} and not {expected_release}; deploy again, then bench"
        )
    check_golden(transport.name, variant, result["golden"])
    return as_record(result, variant, threads)


def check_golden(name: str, variant: str, golden: dict[str, Any]) -> None:
    """Refuse figures of a model that answers differently there than on the host."""
    if golden["within_tolerance"]:
        return
    worst = golden["max_difference_steps"]
    how = "answers no finite number" if worst is None else f"differs from the host by {worst:.3g} steps"
    raise VerifyError(
        f"{name}: the {variant} model {how} on the golden samples (allowed: {golden['tolerance_steps']}, "
        f"top-1 agreement {golden['agreement']:.3f}); try another version of onnxruntime there"
    )


def as_record(result: dict[str, Any], variant: str, threads: int) -> dict[str, Any]:
    """The agent's result under the bench record's names."""
    told = ("split", "samples", "accuracy", "latency_us", "load_us", "peak_rss_bytes", "model_bytes", "tools")
    record = {key: result[key] for key in told}
    record["samples_on_device"] = result["samples"]
    record["agreement"] = result["golden"]["agreement"]
    record["device"] = {
        **result["machine"],
        **{key: result[key] for key in ("release", "rss_rise_bytes", "golden")},
        "variant": variant,
        "threads": threads,
    }
    return record
