"""The command line: an Invoke collection (`ns`) and the console script's `main`.

A family of tasks is a module here; it registers its tasks when it is imported.
"""

from edgekd.cli import (
    chain,
    checkout,
    devices,
    fleets,
    inventory,
    keys,
    plans,
    provision,
    releases,
    rollouts,
    search,
    virtual,
)
from edgekd.cli.command import ns
from edgekd.cli.program import main

__all__ = (
    "chain",
    "checkout",
    "devices",
    "fleets",
    "inventory",
    "keys",
    "main",
    "ns",
    "plans",
    "provision",
    "releases",
    "rollouts",
    "search",
    "virtual",
)
