"""The agent as one file: a zip application with the same bytes wherever it is packed.

Entries are sorted, stored (so no version of zlib can change a byte) and of one date; Python runs the file
as it is (`python3 agent.pyz status`) and imports from it.
"""

from __future__ import annotations

import functools
import io
import zipfile
from pathlib import Path

AGENT = Path(__file__).with_name("agent")  # read, never imported: it runs on Linux only, this anywhere
FILE = "agent.pyz"
PACKAGE = "edgekd_agent"  # what the package is called in the archive
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first date that a zip file can hold
REGULAR_FILE_MODE = 0o100644 << 16

# The archive's own start: valid in old Pythons, to refuse them in words.
MAIN = f"""import sys
if sys.version_info < (3, 11):
    sys.exit("agent.pyz needs Python 3.11 or newer and this is %d.%d" % sys.version_info[:2])
from {PACKAGE}.main import main
sys.exit(main(sys.argv[1:]))
"""


@functools.cache
def agent_archive() -> bytes:
    """The zip application, as it is sent with each call and as it lies in each release."""
    sources = {f"{PACKAGE}/{path.name}": path.read_text(encoding="utf-8") for path in AGENT.glob("*.py")}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, text in sorted({**sources, "__main__.py": MAIN}.items()):
            entry = zipfile.ZipInfo(name, EARLIEST)
            entry.create_system, entry.external_attr = 3, REGULAR_FILE_MODE
            archive.writestr(entry, text.encode())
    return stream.getvalue()
