"""The task that lists a fleet's devices: `fleet.devices`."""

from __future__ import annotations

from typing import Any

from edgekd.cli.command import command, print_json
from edgekd.cli.keys import folder_of


@command("fleet", "inventory", "where", "json", group="fleet")
def devices(**given: Any) -> None:
    """The devices of the inventory and the enrolled ones: address, hardware, models, groups, labels."""
    from edgekd import api_fleet
    from edgekd.report.tables import show_table

    found = api_fleet.devices(folder_of(given), inventory=given["inventory"], where=given["where"])
    if given["json"]:
        print_json(found)
        return
    rows = [[_text(name, value) for name, value in row.items()] for row in found]
    columns = ("device", "address", "groups", "labels", "hardware", "models", "enrolled")
    show_table(f"{len(found)} devices", columns, rows)


def _text(name: str, value: Any) -> Any:
    if name == "labels":
        return ", ".join(f"{key}={text}" for key, text in value.items())
    return ", ".join(value) if isinstance(value, tuple | list) else value
