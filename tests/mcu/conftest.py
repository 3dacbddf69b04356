"""Compilers for the tests of generated C; their cache is shared by all workers of a run."""

from __future__ import annotations

import pytest

from edgekd.mcu.toolchain import Compiler, find_compiler


def _compiler(kind: str, factory: pytest.TempPathFactory) -> Compiler:
    return find_compiler(kind, factory.getbasetemp().parent / "compiler-cache")


@pytest.fixture(scope="session")
def clang(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    return _compiler("clang", tmp_path_factory)


@pytest.fixture(scope="session")
def gcc(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    """For tests that carry @pytest.mark.needs("gcc-arm")."""
    return _compiler("gcc", tmp_path_factory)


@pytest.fixture(
    scope="session", params=["clang", pytest.param("gcc", marks=pytest.mark.needs("gcc-arm", "gcc"))]
)
def compiler(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    return _compiler(request.param, tmp_path_factory)
