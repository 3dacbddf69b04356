"""`edgekd check` for a person: the ops, the targets that fit, what stands in the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekd.report.tables import Cell, show_table

FITS = {True: "yes", False: "no", None: "unknown"}


def show_check(answer: Mapping[str, Any]) -> None:
    """Print an answer of edgekd.mcu.check."""
    ops = [(row["op"], row["count"], row["macs"], row["supported"]) for row in answer["ops"]]
    show_table(f"{answer['model']}: ops", ("op", "layers", "MACs", "runs"), ops, right=(1, 2))
    if answer["unsupported"]:
        print()
        rows = [
            (r["layer"], r["op"], _shapes(r["inputs"]), _shapes(r["outputs"])) for r in answer["unsupported"]
        ]
        show_table("Cannot run", ("layer", "op", "inputs", "outputs"), rows)
    print()
    columns = ("target", "fits", "flash need", "have", "RAM need", "have", "stack, at most", "latency")
    title = f"Targets, bytes predicted for {answer['compiler']}"
    show_table(title, columns, [_row(row) for row in answer["targets"]], right=(2, 3, 4, 5, 6, 7))
    _show_parts(answer)
    _show_weights(answer["weights"])
    for sentence in answer["passes"]:
        print(f"saved before: {sentence}")
    if answer["zeros"]:
        _show_zeros(answer["zeros"])
    for sentence in answer["obstacles"]:
        print(f"in the way: {sentence}")
    for row in answer["targets"]:
        for sentence in row["advice"]:
            print(f"{row['target']}: {sentence}")


def _show_zeros(found: Mapping[str, Any]) -> None:
    """What zero weights save, a line a family; that they save nothing is said, too."""
    share = 100 * found["zero"] / found["weights"]
    for row in found["saved"]:
        gain = f"saves {row['weight_bytes']:,} bytes of weights and {row['macs']:,} multiply-accumulates"
        said = gain if row["weight_bytes"] or row["macs"] else "saves nothing on this target"
        print(f"zero weights, {row['family']} kernels: {share:.0f} % of {found['weights']:,}: {said}")


def _row(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    latency = row["latency_us"]
    return (
        row["target"],
        FITS[row["fits"]],
        row["flash_need"],
        row["flash_have"],
        row["ram_need"],
        row["ram_have"],
        row["stack_bound"],
        None if latency is None else f"{latency / 1e3:.2f} ms",
    )


def _show_parts(answer: Mapping[str, Any]) -> None:
    """What the predicted bytes are, a family of kernels a line."""
    families = {row["family"]: row["parts"] for row in answer["targets"] if row["parts"]}
    rows = [
        (family, *(parts[name] for name in ("weights", "constants", "code", "arena", "static")))
        for family, parts in families.items()
    ]
    if rows:
        print()
        columns = ("kernels", "weights", "constants", "code, at most", "arena", "static")
        show_table("Of these", columns, rows, right=(1, 2, 3, 4, 5))


def _show_weights(layers: Sequence[Mapping[str, Any]]) -> None:
    """Bits a layer, where some layer has others than eight."""
    if all(row["bits"] == 8 for row in layers):
        return
    families = list(layers[0]["stored"])
    rows = [
        (row["layer"], row["op"], row["weights"], row["bits"], row["tables"] or None, *row["stored"].values())
        for row in layers
    ]
    print()
    columns = ("layer", "op", "weights", "bits", "tables", *(f"stored, {family}" for family in families))
    show_table("Weights", columns, rows, right=tuple(range(2, len(columns))))


def show_diff(found: Mapping[str, Any]) -> None:
    """Print an answer of `diff`."""
    layers, samples, first = len(found["compared"]), found["samples"], found["first"]
    if first is None:
        print(f"{found['a']} = {found['b']}: every byte of {layers} layers on {samples} samples")
        return
    *pixel, channel = first["position"]
    rows: list[tuple[Cell, ...]] = [
        ("layer", f"op {first['op']} {first['kind']} ({first['layer']})"),
        ("sample", first["sample"]),
        ("pixel", ", ".join(str(n) for n in pixel) or None),
        ("channel", channel),
        (found["a"], first["a"]),
        (found["b"], first["b"]),
        *(
            (f"{found[side]}: sum before requantization", first[f"accumulator_{side}"])
            for side in ("a", "b")
            if first[f"accumulator_{side}"] is not None
        ),
        ("differing in this layer", f"{first['differing']:,} of {first['elements']:,}"),
    ]
    show_table(f"{found['model']}: the first difference", ("what", "value"), rows, right=(1,))


def _shapes(shapes: Any) -> str:
    return ", ".join("x".join(str(extent) for extent in shape) for shape in shapes[:4])
