"""The tasks of virtual devices: `device.up`, `device.down`, `device.status`."""

from __future__ import annotations

from typing import Any

from edgekd.cli.command import advise, command, make_request, number, print_json
from edgekd.errors import ConfigError

RELEASES = ("bookworm", "trixie")


@command("target", "release", "cache", "port", "store", "json", group="device")
def up(**given: Any) -> None:
    """Build (once) and start a virtual Raspberry Pi; from then on it is an SSH host like any other."""
    from edgekd import api
    from edgekd.report.screen import ProgressView

    release, cache, port = (given.pop(name) for name in ("release", "cache", "port"))
    if release and release not in RELEASES:
        raise ConfigError(f"--release is {release!r}; it must be {' or '.join(RELEASES)}")
    with ProgressView() as view:
        found = api.device_up(make_request(view, given), release, cache, number(port, "port"))
    _show(found, given)
    if not given["json"]:
        advise(f"invoke deploy --target {given['target']}")


@command("target", "store", "json", group="device")
def down(**given: Any) -> None:
    """Switch a virtual device off; its disk is forgotten, the image stays."""
    from edgekd import api

    _show(api.device_down(make_request(lambda *a: None, given)), given)


@command("target", "store", "json", group="device")
def status(**given: Any) -> None:
    """Say how a virtual device is, and how to log in."""
    from edgekd import api

    found = api.device_status(make_request(lambda *a: None, given))
    _show(found, given)
    if found["state"] != "off" and not given["json"]:
        known = f"-o UserKnownHostsFile={found['known_hosts']}"
        login = f"ssh -i {found['key']} {known} -p {found['port']} {found['user']}@{found['host']}"
        advise(login)


def _show(found: dict[str, Any], given: dict[str, Any]) -> None:
    from edgekd.report.tables import show_table

    if given["json"]:
        print_json(found)
        return
    rows = [
        (name, str(value) if name in ("port", "pid") else value)
        for name, value in found.items()
        if name not in ("target", "state")
    ]
    show_table(f"{found['target']}: {found['state']}", ("what", "value"), rows)
