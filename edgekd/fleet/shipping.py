"""The agent as one file, `edgekd-agent.pyz`: a zip application of pure Python that any Python >= 3.11 runs.

It holds the agent, the runner of edgekd's bench, and python-tuf with securesystemslib, as they are installed
here: the device needs no package installer and no network. Only python-tuf's own fetcher is left out, and
urllib3 with it: the agent has another one, and names without anything behind them in its place spare the
device a third of the start. Entries are sorted, stored and of one date.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import zipfile
from pathlib import Path

from edgekd.errors import MissingDependencyError

FILE = "edgekd-agent.pyz"
OWN = (
    "__init__.py",
    "errors.py",
    "device/__init__.py",
    "fleet/__init__.py",
    "fleet/fields.py",
    "fleet/formats.py",
)
OWN_FOLDERS = ("device/agent", "fleet/agent")
LIBRARIES = ("tuf", "securesystemslib")
NOT_NEEDED = ("emscripten", "tests", "/test_", "requests_fetcher", "_internal/proxy")
STAND_IN = b"def __getattr__(name: str) -> type:\n    return type(name, (), {})\n"
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first date that a zip file can hold
REGULAR_FILE_MODE = 0o100644 << 16
MAIN = """import sys
if sys.version_info < (3, 11):
    sys.exit("edgekd-agent needs Python 3.11 or newer and this is %d.%d" % sys.version_info[:2])
for name in ("boto3", "botocore", "google", "azure", "hvac", "pkcs11", "asn1crypto"):
    sys.modules[name] = None  # signers of clouds and cards, which a device that only verifies never needs
from edgekd.fleet.agent.main import main
sys.exit(main())
"""


@functools.cache
def agent_archive() -> bytes:
    """The zip application's bytes. Raises MissingDependencyError where python-tuf is not installed here."""
    package = Path(__file__).resolve().parents[1]
    found = {f"edgekd/{name}": (package / name).read_bytes() for name in OWN}
    for folder in OWN_FOLDERS:
        found |= {
            f"edgekd/{folder}/{path.name}": path.read_bytes() for path in (package / folder).glob("*.py")
        }
    for library in LIBRARIES:
        found |= _sources(library)
    found["tuf/ngclient/urllib3_fetcher.py"] = STAND_IN
    for folder in {name.rpartition("/")[0] for name in found if name.endswith(".py")}:
        found.setdefault(f"{folder}/__init__.py", b"")  # zip files have no namespace packages
    found["__main__.py"] = MAIN.encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(found.items()):
            entry = zipfile.ZipInfo(name, EARLIEST)
            entry.create_system, entry.external_attr = 3, REGULAR_FILE_MODE
            archive.writestr(entry, data)
    return stream.getvalue()


def _sources(library: str) -> dict[str, bytes]:
    """A pure-Python library's sources and its licence, by their places in the archive."""
    spec = importlib.util.find_spec(library)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(
            f"{library} is not installed; install it with: pip install 'edgekd[fleet]'"
        )
    folder = Path(spec.submodule_search_locations[0])
    found = {}
    for path in folder.rglob("*.py"):
        name = f"{library}/{path.relative_to(folder).as_posix()}"
        if not any(part in name for part in NOT_NEEDED):
            found[name] = path.read_bytes()
    for path in folder.parent.glob(f"{library}-*.dist-info/**/LICENSE*"):
        found[f"licences/{library}/{path.name}"] = path.read_bytes()
    return found
