"""Fetch pip's own wheel by the standard library, from the index that pip is configured with.

Only for a Python that has neither ensurepip nor pip, uv or virtualenv. No index is written down
here: where none is configured, bootstrap names the line that installs what is missing. Part of
bootstrap.py.
"""

from __future__ import annotations

import configparser
import hashlib
import html.parser
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from bootstrap_steps.running import StepError


def configuration_files() -> list[Path]:
    """pip's configuration files, the one that wins last (Linux and macOS; Windows' differ by one)."""
    if os.environ.get("PIP_CONFIG_FILE"):
        return [] if os.environ["PIP_CONFIG_FILE"] == os.devnull else [Path(os.environ["PIP_CONFIG_FILE"])]
    home = Path.home()
    if os.name == "nt":
        return [Path(os.environ.get("APPDATA", home)) / "pip" / "pip.ini"]
    return [
        Path("/etc/pip.conf"),
        Path("/etc/xdg/pip/pip.conf"),
        home / ".pip" / "pip.conf",
        Path(os.environ.get("XDG_CONFIG_HOME", home / ".config")) / "pip" / "pip.conf",
    ]


def configured() -> str:
    """The index that pip is told to use, by its environment variable or its files; "" for its default."""
    found = ""
    for path in configuration_files():
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, "utf-8")
            found = parser.get("global", "index-url", fallback=found)
        except configparser.Error:  # pip itself will name what is wrong in its file
            continue
    return os.environ.get("PIP_INDEX_URL", found).rstrip("/")


class _Links(html.parser.HTMLParser):
    """The links of a simple index page, those that this Python may use."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "a" and values.get("href") and "data-yanked" not in values:
            self.found.append(str(values["href"]))


def newest_pip(page: str) -> str:
    """The link to the newest final release of pip's wheel on a simple index page; "" if there is none."""
    links = _Links()
    links.feed(page)
    best: tuple[tuple[int, ...], str] = ((), "")
    for link in links.found:
        name = re.search(r"/?pip-(\d+(?:\.\d+)*)-py3-none-any\.whl(?:#|$)", link)
        if name:
            best = max(best, (tuple(map(int, name[1].split("."))), link))
    return best[1]


def fetch_pip(index_url: str, folder: Path) -> Path:
    """Put pip's newest wheel into `folder`, checked against the digest that the index gives."""
    page_url = f"{index_url}/pip/"
    try:
        with urllib.request.urlopen(page_url, timeout=30) as answer:
            page, page_url = answer.read().decode("utf-8"), answer.url
        link = newest_pip(page)
        if not link:
            raise StepError(f"the index {_without_login(index_url)} has no wheel of pip")
        file_url, _, fragment = urllib.parse.urljoin(page_url, link).partition("#")
        with urllib.request.urlopen(file_url, timeout=60) as answer:
            data = answer.read()
    except (urllib.error.URLError, TimeoutError, ValueError) as error:
        raise StepError(
            f"pip's wheel cannot be fetched from {_without_login(index_url)} ({error}): check the network,"
            " then run this again"
        ) from None
    kind, _, digest = fragment.partition("=")
    if kind == "sha256" and hashlib.sha256(data).hexdigest() != digest:
        raise StepError(f"pip's wheel from {_without_login(index_url)} is damaged: run this again")
    wheel = folder / Path(urllib.parse.urlparse(file_url).path).name
    wheel.write_bytes(data)
    return wheel


def _without_login(url: str) -> str:
    """The address without a user's name and password: it is printed."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
