"""A student trained on another machine image from the knowledge alone, and the same one trained here.

    python benchmarks/elsewhere.py digits --image DIR --out benchmarks/results/elsewhere.json

DIR: where the image is, or is built (as root, by mmdebstrap: Debian trixie with its own Python, and torch
in a virtual environment; some 6 GB). Into it go the repository, the data set and the knowledge: no
teacher, no store. Both students are trained with the recipe's [student] and [distill]; written are their
accuracy, whether their bytes are equal, and how far their weights lie apart.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from edgekd.recipe import load_recipe  # noqa: E402

SUITE = "trixie"  # from the mirror that mmdebstrap takes by itself
PACKAGES = "python3,python3-venv,ca-certificates"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
LIBRARIES = ("torch", "numpy", "safetensors", "scikit-learn", "pillow", "filelock")
COPIED = ("edgekd", "recipes", "benchmarks", "requirements")
PLACE = Path("srv/elsewhere")  # in the image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--store", default="")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--student", nargs=2, type=Path, metavar=("DATASET", "KNOWLEDGE"), help="only train")
    given = parser.parse_args()
    if given.student:
        given.out.mkdir(parents=True, exist_ok=True)
        print(json.dumps(trained(given.recipe, *given.student, given.out)))
    else:
        measured(given)


def trained(recipe: str, dataset: Path, knowledge: Path, out: Path) -> dict[str, Any]:
    """Train the recipe's student from two directories; what it scores and what trained it."""
    import numpy
    import torch

    from edgekd.learn.distill import distill_student

    started = time.process_time()
    metrics = distill_student(dataset, knowledge, load_recipe(recipe, [ROOT / "recipes"]), out)
    release = platform.freedesktop_os_release()["PRETTY_NAME"]
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__}
    return metrics | versions | {"system": release, "cpu_s": round(time.process_time() - started, 1)}


def measured(given: argparse.Namespace) -> None:
    from benchmarks.learn_chain import commit, machine, save
    from edgekd import api

    request = api.request(recipe=given.recipe, store=given.store, start=ROOT)
    dataset, knowledge = (api.make(request, stage).path for stage in ("dataset", "knowledge"))
    image = given.image.absolute()
    if not (image / "srv/venv/bin/python").exists():
        build(image)
    place = image / PLACE
    shutil.rmtree(place, ignore_errors=True)
    for name in COPIED:
        ignored = shutil.ignore_patterns("__pycache__", "results")
        shutil.copytree(ROOT / name, place / name, ignore=ignored)
    shutil.copytree(dataset, place / "dataset")
    shutil.copytree(knowledge, place / "knowledge")
    report: dict[str, Any] = {"recipe": given.recipe, "commit": commit(), "machine": machine()}
    with tempfile.TemporaryDirectory() as here:
        command = [sys.executable, str(ROOT / "benchmarks/elsewhere.py"), given.recipe]
        report["here"] = told([*command, "--out", here, "--student", str(dataset), str(knowledge)])
        base = f"/{PLACE.as_posix()}"
        command = inside(image, "/srv/venv/bin/python", f"{base}/benchmarks/elsewhere.py", given.recipe)
        places = [f"{base}/dataset", f"{base}/knowledge"]
        report["there"] = told([*command, "--out", f"{base}/student", "--student", *places])
        report |= compared(Path(here), place / "student")
    report["in_the_image"] = sorted(path.name for path in place.iterdir())
    save(report, given.out)
    print(json.dumps(report, indent=1))


def build(image: Path) -> None:
    """The image: a minimal Debian, and the libraries that training needs."""
    options = ["--variant=apt", "--mode=root", f"--keyring={KEYRING}", f"--include={PACKAGES}"]
    subprocess.run(["mmdebstrap", *options, SUITE, str(image)], check=True)
    for name in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"):
        shutil.copyfile(Path("/") / name, image / name)
    shutil.copyfile(ROOT / "requirements/lock.txt", image / "srv/lock.txt")
    subprocess.run(inside(image, "python3", "-m", "venv", "/srv/venv"), check=True)
    pip = ("/srv/venv/bin/pip", "install", "-q", "--no-cache-dir", "-c", "/srv/lock.txt")
    subprocess.run(inside(image, *pip, *LIBRARIES), check=True)


def inside(image: Path, *command: str) -> list[str]:
    """A command in the image; /proc is there while it runs, for torch asks it what the processor can do."""
    mounted = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
    return ["unshare", "--mount", "sh", "-c", mounted, str(image), *command]


def told(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compared(here: Path, there: Path) -> dict[str, Any]:
    """Whether two students are the same bytes, and the largest difference of their weights."""
    from safetensors.numpy import load_file

    names = sorted(path.name for path in here.iterdir())
    equal = {name: (here / name).read_bytes() == (there / name).read_bytes() for name in names}
    (file,) = (name for name in names if name.endswith(".safetensors"))
    ours, theirs = load_file(str(here / file)), load_file(str(there / file))
    apart = max(float(abs(ours[name] - theirs[name]).max()) for name in ours)
    return {"equal_bytes": equal, "largest_weight_difference": apart}


if __name__ == "__main__":
    main()
