"""A folder or .zip of images, `train/<class>/*` and `test/<class>/*`, decoded once to uint8 [N, C, H, W].

Without a `test` folder the classes lie at the top and the test split is drawn. Nothing is guessed:
images that cannot be read are listed and counted, and refused above a share; the same file in train
and test is refused.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import ArtifactError, ConfigError, MissingDependencyError
from edgekd.progress import Progress, silent
from edgekd.recipe import DataParams

Bytes = npt.NDArray[np.uint8]
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
_TOLD_EVERY = 1000


@dataclass(frozen=True, eq=False)
class Images:
    """x: uint8 [N, C, H, W], training images first; y: int64 [N]; test: how many of the last are the test's.

    unreadable: names of what was left out.
    """

    x: Bytes
    y: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    test: int
    unreadable: tuple[str, ...]


def read_images(params: DataParams, progress: Progress = silent) -> Images:
    """Decode all images below `params.path`. Raises ArtifactError or ConfigError with the mend."""
    path = Path(params.path)
    with _opened(path) as source:
        parts = _parts(source.names, path)
        classes = tuple(sorted({name for part in parts.values() for name in part}))
        if len(classes) < 2:
            raise ArtifactError(
                f"{path} has {len(classes)} class ({', '.join(classes)}); put each class's images "
                "into a folder of its own"
            )
        files = [
            (split, classes.index(name), file)
            for split in ("train", "test")
            for name, members in sorted(parts.get(split, {}).items())
            for file in sorted(members)
        ]
        return _decode(source, files, classes, params, path, progress)


def _decode(
    source: _Source,
    files: list[tuple[str, int, str]],
    classes: tuple[str, ...],
    params: DataParams,
    path: Path,
    progress: Progress,
) -> Images:
    open_image = _decoder(params)
    pixels: list[Bytes] = []
    labels: list[int] = []
    unreadable: list[str] = []
    seen: dict[bytes, tuple[str, str]] = {}
    tests = 0
    for number, (split, label, file) in enumerate(files):
        raw = source.read(file)
        try:
            image = open_image(raw)
        except (OSError, ValueError, SyntaxError):
            unreadable.append(file)
            continue
        other = seen.setdefault(hashlib.sha256(raw).digest(), (split, file))
        if other[0] != split:
            raise ArtifactError(f"{path}: {other[1]} and {file} are the same image; remove one of them")
        if pixels and image.shape != pixels[0].shape:
            raise ArtifactError(
                f"{path}: {file} is {image.shape[1]} x {image.shape[2]} pixels and the first image "
                f"{pixels[0].shape[1]} x {pixels[0].shape[2]}; set data.size_px to bring all to one size"
            )
        pixels.append(image)
        labels.append(label)
        tests += split == "test"
        if number % _TOLD_EVERY == 0:
            progress("decode images", number, len(files))
    _refuse_unreadable(path, unreadable, len(files), params.max_unreadable_share)
    x = np.stack(pixels)
    return Images(x, np.array(labels, np.int64), classes, tests, tuple(unreadable))


def _refuse_unreadable(path: Path, unreadable: list[str], count: int, allowed: float) -> None:
    if len(unreadable) > allowed * count or len(unreadable) == count:
        shown = ", ".join(unreadable[:3]) + (", ..." if len(unreadable) > 3 else "")
        raise ArtifactError(
            f"{path}: {len(unreadable)} of {count} images cannot be read ({shown}); mend or remove them, "
            "or raise data.max_unreadable_share"
        )


def _decoder(params: DataParams) -> Callable[[bytes], Bytes]:
    """A function from a file's bytes to uint8 [C, H, W]."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingDependencyError(
            "images need pillow; install it with: pip install 'edgekd[learn]'"
        ) from None
    mode, size = {"rgb": "RGB", "grey": "L"}[params.channels], params.size_px

    def decode(raw: bytes) -> Bytes:
        with Image.open(io.BytesIO(raw)) as opened:
            image = opened.convert(mode)
        if size and image.size != (size, size):
            image = _squared(image, size)
        array = np.asarray(image, np.uint8)
        return np.ascontiguousarray(array.transpose(2, 0, 1)) if array.ndim == 3 else array[None]

    return decode


def _squared(image: Any, size: int) -> Any:
    """The middle square of an image, resized to `size` pixels."""
    from PIL import Image

    side = min(image.size)
    left, top = (image.size[0] - side) // 2, (image.size[1] - side) // 2
    return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))


def _parts(names: Iterator[str], path: Path) -> dict[str, dict[str, list[str]]]:
    """split -> class -> files. Classes at the top, without train/ and test/, are the training split."""
    found: dict[str, dict[str, list[str]]] = {}
    for name in names:
        parts = PurePosixPath(name).parts
        if len(parts) < 2 or PurePosixPath(name).suffix.lower() not in SUFFIXES:
            continue
        split = parts[-3] if len(parts) > 2 and parts[-3] in ("train", "test") else "train"
        found.setdefault(split, {}).setdefault(parts[-2], []).append(name)
    if "train" not in found:
        raise ArtifactError(f"{path} holds no images of the form train/<class>/*.jpg; check data.path")
    missing = set(found.get("test", found["train"])) ^ set(found["train"])
    if missing:
        raise ArtifactError(
            f"{path}: class {min(missing)!r} is in one of train/ and test/ only; give it in both"
        )
    return found


class _Source:
    """The files of a folder or of a zip, by relative name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.archive = zipfile.ZipFile(path) if path.is_file() else None

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *error: object) -> None:
        if self.archive:
            self.archive.close()

    @property
    def names(self) -> Iterator[str]:
        if self.archive:
            return iter(self.archive.namelist())
        return (p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file())

    def read(self, name: str) -> bytes:
        try:
            return self.archive.read(name) if self.archive else (self.path / name).read_bytes()
        except (OSError, zipfile.BadZipFile, EOFError) as error:
            if isinstance(error, OSError) and not self.archive:
                raise ArtifactError(f"{self.path / name} cannot be read: {error.strerror}; mend it") from None
            return b""  # a damaged member: counted as an unreadable image


def _opened(path: Path) -> _Source:
    if not path.exists():
        raise ConfigError(f"the images {path} are not there; set data.path in the recipe, or give --source")
    try:
        return _Source(path)
    except (OSError, zipfile.BadZipFile):
        raise ArtifactError(
            f"{path} is neither a folder nor a readable .zip of images; check data.path"
        ) from None
