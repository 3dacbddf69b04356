"""`doctor --target`: one row for each thing that can be wrong with a Linux device, from the link upwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edgekd.device.provisioning.choose import choose, read_lock
from edgekd.device.provisioning.provision import CLOCK_TOLERANCE_S, read_facts
from edgekd.device.transport import Transport
from edgekd.errors import EdgekdError, VerifyError

SPACE_BYTES = 400 << 20  # a runtime while it is installed, and a few releases
HOT_C = 80.0  # a Raspberry Pi lowers its frequency from here
Row = dict[str, Any]


def row(check: str, state: str, found: str, mend: str = "") -> Row:
    """One row: `state` is "ok", "look" (works, and figures may suffer) or "bad"."""
    return {"check": check, "state": state, "found": found, "mend": mend}


def examine_device(connect: Callable[[], Transport], root: str) -> list[Row]:
    """All rows; where the device cannot be reached, one row that says why."""
    try:
        with connect() as transport:
            name, facts = transport.name, read_facts(transport, root)
    except EdgekdError as error:
        check = "key" if isinstance(error, VerifyError) else "reachable"
        return [row(check, "bad", "no", str(error))]
    return [row("reachable", "ok", name), row("key", "ok", "pinned"), *judge(name, facts)]


def judge(name: str, facts: Mapping[str, Any]) -> Iterator[Row]:
    """The rows that follow from what the device says of itself."""
    machine = facts["machine"]
    board = machine["board"] or machine["cpu"] or "?"
    yield row("board", "ok", f"{board}, {machine['architecture']}, {machine['cores']} cores")
    yield row("system", "ok", f"{machine['os'] or '?'}, {facts['libc'] or 'unknown C library'}")
    yield row("python", "ok", f"{facts['python']} ({facts['executable']}), {facts['word_bits']}-bit")
    yield _clock(facts)
    yield _root(facts)
    yield _space(facts)
    yield _power(facts)
    yield _governor(facts)
    yield _temperature(facts)
    yield _runtime(name, facts)


def _clock(facts: Mapping[str, Any]) -> Row:
    off_s = facts["clock_off_s"]
    if off_s <= CLOCK_TOLERANCE_S:
        return row("clock", "ok", f"within {max(off_s, 1):,.0f} s of this machine's")
    mend = (
        "set it: sudo date -u -s @$(date +%s), or switch on timedatectl set-ntp; signed releases expire by it"
    )
    return row("clock", "bad", f"off by {off_s:,.0f} s", mend)


def _root(facts: Mapping[str, Any]) -> Row:
    if facts["is_read_only"]:
        return row(
            "root", "bad", f"{facts['root']} is mounted read-only", "remount it, or set connection.root"
        )
    if not facts["is_writable"]:
        return row("root", "bad", f"{facts['root']} cannot be written", "set connection.root to another")
    return row("root", "ok", facts["root"])


def _space(facts: Mapping[str, Any]) -> Row:
    free = f"{facts['free_bytes'] >> 20:,} MiB free"
    if facts["free_bytes"] >= SPACE_BYTES:
        return row("space", "ok", free)
    return row("space", "look", free, f"a runtime and some releases want {SPACE_BYTES >> 20} MiB; make room")


def _power(facts: Mapping[str, Any]) -> Row:
    said = facts["throttled"]
    if said is None:
        return row("throttling", "ok", "not told (no vcgencmd)")
    if not said:
        return row("throttling", "ok", "none")
    now = any(text.endswith("now") for text in said)
    return row("throttling", "bad" if now else "look", ", ".join(said), "a better supply, or cooling")


def _governor(facts: Mapping[str, Any]) -> Row:
    governor = facts["governor"]
    if governor in (None, "performance"):
        return row("governor", "ok", governor or "none (the frequency is fixed)")
    mend = "for steady figures: echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/*governor"
    return row("governor", "look", governor, mend)


def _temperature(facts: Mapping[str, Any]) -> Row:
    degrees = facts["temperature_c"]
    if degrees is None:
        return row("temperature", "ok", "not told")
    return row("temperature", "ok" if degrees < HOT_C else "bad", f"{degrees:.0f} °C")


def _runtime(name: str, facts: Mapping[str, Any]) -> Row:
    there = facts["packages"]
    found = ", ".join(f"{package} {version}" for package, version in there.items() if package != "numpy")
    try:
        choice = choose(name, facts, (), read_lock())
    except EdgekdError as error:
        return row("runtime", "look" if found else "bad", found or "none", str(error))
    if found:
        own = (facts["environment"] or {}).get("name")
        return row("runtime", "ok", f"{found} ({own or 'of the system'})")
    return row("runtime", "bad", "none", f"invoke provision: {' and '.join(choice.runtimes)} fit")
