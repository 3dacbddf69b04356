"""Turns, percentiles, arrays without numpy, and the conditions of a measurement from trees like /sys."""

from __future__ import annotations

import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.device.agent.arrays import Rows, sample_values
from edgekd.device.agent.conditions import EnergyMeter, conditions, throttling
from edgekd.device.agent.measure import percentiles, plan_runs, summary, take_turns, warm_up
from edgekd.device.agent.messages import AgentError
from edgekd.device.agent.selection import thread_counts
from edgekd.export.variants import to_channels_last


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([1000], (1.0, 1.0, 1.0, 1.0)),
        (list(range(1000, 101_000, 1000)), (50.0, 90.0, 99.0, 50.5)),
        ([3000, 1000, 2000], (2.0, 3.0, 3.0, 2.0)),
    ],
)
def test_percentiles(times: list[int], expected: tuple[float, ...]) -> None:
    told: dict[str, Any] = percentiles(times)
    assert (told["p50"], told["p90"], told["p99"], told["mean"]) == expected
    assert told["n"] == len(times)


def test_candidates_take_turns_and_one_that_fails_ends_alone() -> None:
    order: list[str] = []

    def clock(name: str, lives: int) -> Any:
        def run(count: int, max_s: float) -> list[int]:
            order.append(name)
            return [1000] * count if order.count(name) <= lives else []

        return run

    clocks = {("a", 1): clock("a", 99), ("b", 1): clock("b", 2)}
    rounds: list[int] = []
    found = take_turns(clocks, dict.fromkeys(clocks, 3), rounds.append)
    assert order[:6] == ["a", "b", "b", "a", "a", "b"] and rounds == list(range(1, 9))
    assert list(found) == [("a", 1)] and [len(block) for block in found["a", 1]] == [3] * 8
    told = summary(found["a", 1])
    assert told["latency_us"]["n"] == 24 and told["throughput_per_s"] == 1e6


def test_slow_candidates_run_less_but_never_less_than_ten_times() -> None:
    counts = plan_runs({("fast", 1): 1e-5, ("slow", 1): 10.0}, runs=300, max_s=8.0)
    assert counts == {("fast", 1): 38, ("slow", 1): 2}


def test_warming_up_ends_with_its_time_and_says_what_a_run_takes() -> None:
    assert warm_up(lambda count, max_s: [2_000_000] * count, 20, 5.0) == pytest.approx(0.002)
    assert warm_up(lambda count, max_s: [], 20, 5.0) is None


def test_thread_counts() -> None:
    assert thread_counts(4, 0) == [1, 2, 3, 4] and thread_counts(12, 0) == [1, 2, 3, 4, 8, 12]
    assert thread_counts(4, 2) == [1, 2] and thread_counts(1, 0) == [1]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int8", "uint8"])
def test_rows_are_numpys(tmp_path: Path, dtype: str) -> None:
    values = np.random.default_rng(1).integers(0, 100, (5, 3, 2)).astype(dtype)
    np.save(tmp_path / "x.npy", values)
    rows = Rows(tmp_path / "x.npy")
    assert len(rows) == 5 and rows.row(3).tolist() == values[3].ravel().tolist()


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY\x01\x00\xff\xffhello", b"x" * 200])
def test_a_file_that_is_no_array_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(AgentError):
        Rows(tmp_path / "x.npy")


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 4, 5), (3, 1, 1), (7,)])
def test_layouts_are_the_hosts(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(2).normal(size=(1, *shape)).astype(np.float32)
    row = memoryview(array.array("f", x.ravel().tolist()))
    assert sample_values(row, x.shape, "NHWC").tolist() == to_channels_last(x).ravel().tolist()
    assert sample_values(row, x.shape, "NCHW").tolist() == x.ravel().tolist()


def tree(root: Path, **files: str) -> Path:
    """Files under `root`, `__` for a slash and `_C_` for a colon."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_C_", ":").replace("_D_", "-")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def test_conditions_of_a_pi(tmp_path: Path) -> None:
    cpu = "devices__system__cpu__cpu0"
    files = {
        "class__thermal__thermal_zone0__temp": "51121",
        "class__thermal__thermal_zone1__temp": "48000",
        f"{cpu}__cpufreq__scaling_cur_freq": "1500000",
        f"{cpu}__cpufreq__scaling_governor": "ondemand",
        "devices__platform__soc__soc_C_firmware__get_throttled": "50005",
    }
    told = conditions(tree(tmp_path, **files))
    assert told["temperature_c"] == 51.121 and told["frequency_hz"] == 1_500_000_000
    assert told["throttled_bits"] == 0x50005 and told["governor"] == "ondemand"
    assert throttling(told, told) == ["under-voltage", "throttled"]
    cool = told | {"throttled_bits": 0x50000}
    assert throttling(cool, cool) == []  # it was so before, and is no more
    assert throttling(told | {"throttled_bits": 0}, cool) == ["under-voltage", "throttled"]


def test_conditions_of_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    told = conditions(tmp_path)
    assert set(told.values()) == {None} and throttling(told, told) is None
    counted = told | {"throttle_events": 3}
    assert throttling(counted, counted | {"throttle_events": 5}) == ["2 throttling events of the processor"]


def test_energy_by_counter_and_by_sensor(tmp_path: Path) -> None:
    rapl = "class__powercap__intel_D_rapl"
    counter = {f"{rapl}_C_0__energy_uj": "900", f"{rapl}_C_0__max_energy_range_uj": "1000"}
    meter = EnergyMeter(tree(tmp_path / "a", **counter))
    meter.start()
    tree(tmp_path / "a", **{f"{rapl}_C_0__energy_uj": "300"})  # it has begun again
    assert meter.stop() == {"joules": 400 / 1e6, "source": "rapl"}
    sensor = EnergyMeter(tree(tmp_path / "b", class__hwmon__hwmon0__power1_input="2500000"))
    sensor.start()
    told = sensor.stop()
    assert told is not None and told["source"] == "hwmon power" and 0 < told["joules"] < 2.5
    nothing = EnergyMeter(tmp_path / "c")
    nothing.start()
    assert nothing.stop() is None
