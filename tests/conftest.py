"""What every test may use: the marks `shared` and `needs(tool)`, the fixture `shared`, and `--no-skips`.

A test that needs something absent is skipped with the line that installs it; with `--no-skips` a
skip is a failure, so that nothing is left out unseen where everything should be there.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from edgekd import doctor

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test is a failed test")


def _absent(item: pytest.Item) -> str:
    """Why this test cannot run here, or nothing."""
    if item.get_closest_marker("shared") and not SHARED.is_dir():
        return "needs the data folder shared/ beside the repository"
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            row = doctor.probe(doctor.by_name(name), ask_version=False)
            if not row.found:
                return f"needs {name}: {row.install}"
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    reason = _absent(item)
    if reason:
        pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if item.config.getoption("--no-skips"):
        _fail_a_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if collector.config.getoption("--no-skips"):
        _fail_a_skip(report)
    return report


def _fail_a_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Under --no-skips: a skip becomes a failure with the same reason (expected failures stay)."""
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{reason} (skips are failures here: --no-skips)"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The data folder beside the repository; a test that asks for it also carries the mark `shared`."""
    if not SHARED.is_dir():
        pytest.skip("needs the data folder shared/ beside the repository")
    return SHARED
