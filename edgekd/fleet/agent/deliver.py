"""Bring a device's signed report to where the operator's watcher reads it: an HTTP PUT, or a folder.

`report_url` of agent.toml names the place; a report goes there as DEVICE.json, its signature before it as
DEVICE.json.sig. Whoever serves it need not be trusted: the signature tells whose it is, its number how old.
A report that says nothing new is sent once a day at most, so a fleet at rest costs nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import urllib.parse
from pathlib import Path
from typing import Any

from edgekd.fleet.agent import report

SCHEMES = ("http", "https", "file")
AGAIN_S = 86_400
WAIT_S = 15.0
NEWS = ("running", "release", "phase", "reason", "candidate", "quarantined", "floor")


class Undelivered(Exception):
    """Nobody took the report; the next visit tries again."""


def news(told: dict[str, Any]) -> str:
    """The digest of what a watcher decides by: the same for two reports that say the same."""
    models = {name: {key: each[key] for key in NEWS} for name, each in told["models"].items()}
    refused = told["refused"]["reason"] if told["refused"] else None
    return hashlib.sha256(json.dumps([models, refused], sort_keys=True).encode()).hexdigest()


def is_due(told: dict[str, Any], sent: str, sent_at_s: int) -> bool:
    """Whether the report says something new, or the last one is a day old (or from the future)."""
    return news(told) != sent or not 0 <= told["at"] - sent_at_s < AGAIN_S


def deliver(root: Path, device: str, url: str) -> None:
    """Send report.json and its signature. Raises Undelivered in one sentence."""
    for name, suffix in ((report.SIGNATURE, ".json.sig"), (report.FILE, ".json")):
        place = f"{url.rstrip('/')}/{device}{suffix}"
        try:
            _put(place, (root / name).read_bytes())
        except (OSError, ValueError) as error:
            raise Undelivered(f"{place}: the report was not taken ({error})") from None


def _put(url: str, data: bytes) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "file":
        path = Path(urllib.parse.unquote(parts.path))
        fresh = path.with_name(f"{path.name}.new")
        fresh.write_bytes(data)
        os.replace(fresh, path)
        return
    import http.client  # late: most visits send nothing, and memory is scarce

    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=WAIT_S)
    path_and_query = parts.path + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("PUT", path_and_query, data, {"Content-Type": "application/json"})
        status = connection.getresponse().status
    except http.client.HTTPException as error:
        raise ValueError(type(error).__name__) from None
    finally:
        connection.close()
    if status >= 300:
        raise ValueError(f"status {status}")
