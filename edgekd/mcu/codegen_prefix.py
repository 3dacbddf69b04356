"""Several models in one image: every file and global symbol under another prefix than "model".

The text is generated for "model" and renamed here, as one step behind everything else. What is renamed is
what the generated C itself names: files and identifiers that begin with model_ or MODEL_, and the assembly's
functions, which belong to one model. Strings, and what comments quote of the graph, stay. The kernels in C
(k_*.c) are the same for all models of one edgekd and keep their names: an image holds each once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

PLAIN = "model"

_CODE = re.compile(r'/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)
_OURS = re.compile(r"\b(?:model_|MODEL_)\w+|\bMODEL_H\b")
_FILE = re.compile(r"\bmodel(?:_\w+)?\.(?:h|c|S)\b")
_LEAF = re.compile(r"^    \.global (k_\w+)$", re.MULTILINE)


def renamed(files: Mapping[str, str], prefix: str) -> dict[str, str]:
    """`files` of a generated directory under `prefix`; the same text where it is "model"."""
    if prefix == PLAIN:
        return dict(files)
    own = [name for name in files if name.startswith(PLAIN)]
    known = {found for name in own for found in _OURS.findall(_CODE.sub(" ", files[name]))}
    known |= set(own) | set(_FILE.findall(" ".join(own)))
    leaves = set(_LEAF.findall(files.get("model_dsp.S", "")))
    words = {word: rename(word, prefix) for word in known} | {leaf: f"{prefix}_{leaf}" for leaf in leaves}
    result: dict[str, str] = {}
    for name, text in files.items():
        if name in own or name == "layers.json":
            result[rename(name, prefix)] = _replaced(text, words, quoted=name == "layers.json")
        else:
            result[name] = text
    return dict(sorted(result.items()))


def rename(word: str, prefix: str) -> str:
    """One identifier or file name."""
    if word.startswith("MODEL_"):
        return prefix.upper() + word.removeprefix("MODEL")
    return prefix + word.removeprefix(PLAIN) if word.startswith(PLAIN) else word


def _replaced(text: str, words: Mapping[str, str], *, quoted: bool) -> str:
    """`text` with every whole word of `words` replaced; strings only where they name a file, or `quoted`."""
    pattern = re.compile(
        r"(?<![\w.])(?:" + "|".join(sorted(map(re.escape, words), key=len, reverse=True)) + r")(?!\w)"
    )

    def swap(found: re.Match[str]) -> str:
        return words[found[0]]

    if quoted:
        return pattern.sub(swap, text)
    parts, end = [], 0
    for found in re.finditer(r'"(?:\\.|[^"\\\n])*"', text):
        parts.append(pattern.sub(swap, text[end : found.start()]))
        file = words.get(found[0][1:-1]) if "." in found[0] else None
        parts.append(f'"{file}"' if file else found[0])
        end = found.end()
    return "".join((*parts, pattern.sub(swap, text[end:])))


def adapter(header: str, prefix: str) -> str:
    """A model.h for code that knows the plain names: the harness of the emulated core, the host's runner."""
    upper = prefix.upper()
    macros = sorted(set(re.findall(rf"\b{upper}_(\w+)", _CODE.sub(" ", header))) - {"H"})
    functions = sorted(set(re.findall(rf"\b{prefix}_(\w+)", _CODE.sub(" ", header))))
    lines = [f"#define MODEL_{name} {upper}_{name}\n" for name in macros]
    lines += [f"#define model_{name} {prefix}_{name}\n" for name in functions]
    return f'/* SPDX-License-Identifier: 0BSD */\n#include "{prefix}.h"\n\n' + "".join(lines)


def prefix_of(names: Iterable[str]) -> str | None:
    """The prefix of a generated directory, from its files' names; None where it is none."""
    stems = [name.removesuffix("_weights.h") for name in names if name.endswith("_weights.h")]
    return next((stem for stem in stems if f"{stem}.h" in names and stem != "k"), None)
