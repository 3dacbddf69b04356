"""Searches need the learn, mcu and search extras."""

import pytest

pytest.importorskip("optuna")
