"""What a measurement was made under: temperature, frequency, throttling, energy. None where nothing tells."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SYS = Path("/sys")
# The bits of the Raspberry Pi's get_throttled, now and (16 higher) since boot.
PI_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}


def numbers(paths: Iterable[Path]) -> list[int]:
    """The integers in files of /sys, those that can be read."""
    found = []
    for path in sorted(paths):
        with contextlib.suppress(OSError, ValueError):
            found.append(int(path.read_text().strip(), 0))
    return found


def conditions(sys_root: Path = SYS) -> dict[str, Any]:
    """The hottest zone, the fastest core, the Pi's throttling bits, and the processor's throttling events."""
    zones = numbers(sys_root.glob("class/thermal/thermal_zone*/temp"))
    clocks = numbers(sys_root.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"))
    events = numbers(sys_root.glob("devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count"))
    governors = sorted(sys_root.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"))
    governor = None
    with contextlib.suppress(OSError, IndexError):
        governor = governors[0].read_text().strip()
    return {
        "temperature_c": max(zones) / 1000 if zones else None,
        "frequency_hz": max(clocks) * 1000 if clocks else None,
        "governor": governor,
        "throttled_bits": pi_bits(sys_root),
        "throttle_events": sum(events) if events else None,
    }


def pi_bits(sys_root: Path = SYS) -> int | None:
    """What `vcgencmd get_throttled` says on a Raspberry Pi, or the kernel's file of the same."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["vcgencmd", "get_throttled"], capture_output=True, text=True, timeout=3, check=False
        )
        found = re.search(r"throttled=(0x[0-9a-fA-F]+)", done.stdout)
        if found:
            return int(found[1], 16)
    with contextlib.suppress(OSError, ValueError):
        path = sys_root / "devices" / "platform" / "soc" / "soc:firmware" / "get_throttled"
        return int(path.read_text().strip(), 16)
    return None


def throttling(before: dict[str, Any], after: dict[str, Any]) -> list[str] | None:
    """Why a run between two `conditions` was not at full speed; [] when it was, None when nothing tells."""
    reasons: list[str] = []
    bits, later = before["throttled_bits"], after["throttled_bits"]
    if later is not None:
        fresh = later & ~(bits or 0)
        for bit, name in PI_BITS.items():
            if (later | (bits or 0)) >> bit & 1 or fresh >> (16 + bit) & 1:
                reasons.append(name)
    count, more = before["throttle_events"], after["throttle_events"]
    if count is not None and more is not None and more > count:
        reasons.append(f"{more - count} throttling events of the processor")
    return None if later is None and more is None else reasons


class EnergyMeter:
    """Energy between `start` and `stop`: counters of RAPL or hwmon, else the mean of power sensors (INA)."""

    def __init__(self, sys_root: Path = SYS) -> None:
        packages = sorted(sys_root.glob("class/powercap/intel-rapl:[0-9]*/energy_uj"))
        packages = [path for path in packages if path.parent.name.count(":") == 1]
        self._counters = [path for path in packages if numbers([path])]
        self._source = "rapl"
        if not self._counters:
            self._counters = sorted(sys_root.glob("class/hwmon/hwmon*/energy*_input"))
            self._source = "hwmon energy"
        self._sensors = sorted(sys_root.glob("class/hwmon/hwmon*/power*_input"))
        self._begin: list[int] = []
        self._watts: list[float] = []
        self._begin_s = 0.0

    def start(self) -> None:
        """Begin; a power sensor is read here, at each `sample` and at the end."""
        self._begin, self._watts, self._begin_s = numbers(self._counters), [], time.monotonic()
        self.sample()

    def sample(self) -> None:
        """Read the power sensors, microwatts each."""
        if not self._counters and (told := numbers(self._sensors)):
            self._watts.append(sum(told) / 1e6)

    def stop(self) -> dict[str, Any] | None:
        """{"joules", "source"} since `start`, or None without a sensor."""
        self.sample()
        seconds, end = time.monotonic() - self._begin_s, numbers(self._counters)
        if self._counters and len(end) == len(self._begin):
            spent = 0
            for path, first, last in zip(self._counters, self._begin, end, strict=True):
                spent += last - first if last >= first else last - first + (wrap_at(path) or 0)
            return {"joules": spent / 1e6, "source": self._source} if spent >= 0 else None
        if self._watts:
            mean = sum(self._watts) / len(self._watts)
            return {"joules": mean * seconds, "source": "hwmon power"}
        return None


def wrap_at(counter: Path) -> int | None:
    """Where a RAPL counter begins again."""
    told = numbers([counter.with_name("max_energy_range_uj")])
    return told[0] if told else None
