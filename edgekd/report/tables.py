"""Tables for a person: a bench record, the stages, targets, what is installed; data in, text on stdout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Cell = str | int | float | None


def show_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]], right: Sequence[int] = ()
) -> None:
    """Print one table; None shows as a dash; `right` lists the columns of figures."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell_text(value) for value in row))

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would end the process here; the command line has its own way out

    console = Screen(markup=False, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = 110
    console.print(table)


def cell_text(value: Cell) -> str:
    """A figure as people read it: thousands apart, floats to four digits, None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return value


def show_record(record: Mapping[str, Any]) -> None:
    """A bench record as tables: the headline, then instructions by layer."""
    subject = record["recipe"] or record["model"]
    show_table(
        f"{subject} on {record['target']}", ("figure", "value", "how"), list(headline(record)), right=(1,)
    )
    show_selection(record)
    layers = (record["instructions"] or {}).get("by_layer")
    if layers:
        print()
        total = sum(layer["instructions"] for layer in layers) or 1
        rows = [
            (
                layer["name"],
                layer["op"],
                layer.get("kernel"),
                layer["macs"],
                round(layer["instructions"]),
                layer.get("cycles"),
                f"{100 * layer['instructions'] / total:.1f} %",
                f"{layer['instructions'] / layer['macs']:.2f}" if layer["macs"] else None,
            )
            for layer in layers
        ]
        columns = ("layer", "op", "kernel", "MACs", "instructions", "cycles", "share", "a MAC")
        show_table(
            "Instructions by layer (one inference, mean of the counted)", columns, rows, right=(3, 4, 5, 6, 7)
        )
    plan = record.get("memory_plan")
    if plan:
        print()
        for sentence in (plan["words"], *plan["advice"]):
            print(f"memory: {sentence}")


def show_layers(layers: Sequence[Mapping[str, Any]]) -> None:
    """The kernel of each layer of generated C, with what it is predicted to run; nothing for none."""
    if layers:
        columns = ("name", "op", "kernel", "instructions", "cycles", "flash_bytes")
        rows = [[layer[column] for column in columns] for layer in layers]
        print()
        show_table("Kernels by layer, predicted", ("layer", *columns[1:]), rows, right=(3, 4, 5))


def headline(record: Mapping[str, Any]) -> Iterable[tuple[Cell, Cell, Cell]]:
    """(figure, value, how it was got) for everything that was measured."""
    yield from _accuracy_rows(record)
    yield from _core_rows(record)
    yield from _linux_rows(record)
    flash, ram = record["flash_bytes"], record["ram_bytes"]
    if flash:
        parts = f"weights {flash['weights']:,} + code {flash['code']:,} + constants {flash['constants']:,}"
        yield "flash, bytes", flash["total"], f"linked image: {parts}"
    if ram:
        parts = f"arena {ram['arena']:,} + static {ram['static']:,} + peak stack {ram['stack']:,}"
        parts += f" + slow RAM {ram['slow']:,}" if ram.get("slow") else ""
        yield "RAM, bytes", ram["total"], parts
    if record["model_bytes"]:
        yield "model file, bytes", record["model_bytes"], ""


def _accuracy_rows(record: Mapping[str, Any]) -> Iterable[tuple[Cell, Cell, Cell]]:
    if record["accuracy"] is not None:
        yield (
            "accuracy, int8",
            f"{record['accuracy']:.4f}",
            f"{record['samples']:,} samples, split: {record['split']}",
        )
    for key, kind in (("auc", "int8"), ("auc_float", "float")):
        if record.get(key) is not None:
            how = "area under the ROC curve of the squared error" if kind == "int8" else "ONNX Runtime"
            yield f"AUC, {kind}", f"{record[key]:.4f}", f"{how}, {record['samples']:,} samples"
    if record["accuracy_float"] is not None:
        yield (
            "accuracy, float",
            f"{record['accuracy_float']:.4f}",
            "ONNX Runtime on this machine, same samples",
        )
    if record["agreement"] is not None:
        how = "the host's, golden samples" if "variant" in record else "the integer reference"
        yield "agreement", f"{record['agreement']:.4f}", f"top-1 equal to {how}"
    if record["bit_exact"] is not None:
        device = record["samples_on_device"]
        if "variant" in record:
            yield "bytes equal", record["bit_exact"], "the integer reference's, golden samples"
            return
        how = f"reference = C on the host ({record['samples']:,} samples) = C on the core ({device or 0:,})"
        yield "bytes equal", record["bit_exact"], how


def _core_rows(record: Mapping[str, Any]) -> Iterable[tuple[Cell, Cell, Cell]]:
    counts = record["instructions"]
    if counts and "median" in counts:
        n, device = counts.get("counted_samples"), record["device"]
        place = f"emulated {device['core']} ({device['engine']})" if "core" in device else "user mode"
        how = f"exact, {place}; median of {n}"
        yield "instructions", round(counts["median"]), how
    if record["estimated_cycles"]:
        yield (
            "cycles, estimated",
            round(record["estimated_cycles"]["median"]),
            "instruction classes x the profile's costs",
        )
    if record["estimated_latency_us"] is not None:
        yield (
            "latency, estimated",
            f"{record['estimated_latency_us'] / 1e3:.3f} ms",
            "estimated cycles at the profile's clock",
        )


def _linux_rows(record: Mapping[str, Any]) -> Iterable[tuple[Cell, Cell, Cell]]:
    if chosen := record.get("variant"):
        how = "chosen on the device" if record["selection"] else "as named"
        yield "variant", f"{chosen['variant']}, {chosen['threads']} thread(s)", f"{chosen['engine']}; {how}"
    latency, emulated = record["latency_us"], record.get("emulated")
    if latency:
        tail = ", ".join(f"{name} {latency[name]:,.1f}" for name in ("p90", "p99", "mean"))
        how = f"{tail}, n = {latency['n']:,}" + ("; EMULATED, no device's" if emulated else "")
        yield "latency p50, us", f"{latency['p50']:,.1f}", how
    if record.get("noise") is not None:
        yield "noise of that", f"{100 * record['noise']:.1f} %", "A/A: the run against itself"
    if record["load_us"] is not None:
        yield "load, ms", f"{record['load_us'] / 1e3:.1f}", "from file to a session that answers"
    if record.get("cold_start_us") is not None:
        yield (
            "cold start, ms",
            f"{record['cold_start_us'] / 1e3:.0f}",
            "a process, its runtime, a first answer",
        )
    if record["peak_rss_bytes"] is not None:
        rise = record.get("rss_rise_bytes")
        yield "peak RSS, bytes", record["peak_rss_bytes"], f"{rise or 0:,} over the idle interpreter"
    if energy := record.get("energy"):
        yield "energy, uJ", round(energy["uj"], 1), f"an inference, of the whole device ({energy['source']})"
    if throttled := (record.get("conditions") or {}).get("throttled"):
        yield "THROTTLED", ", ".join(throttled), "the times are too long; cool or power it better"


def show_selection(record: Mapping[str, Any]) -> None:
    """Every variant's row with its verdict, and why; nothing where none was chosen."""
    selection = record.get("selection")
    if not selection:
        return
    is_time = selection["ranked_by"] != "instructions"
    measure = "p50, us" if is_time else "instructions"
    rows = [
        (
            row["variant"],
            row["threads"],
            row["p50_us"] if is_time else row["instructions"],
            None if row["quality"] is None else f"{row['quality']:.4f}",
            row["file_bytes"],
            row["rss_rise_bytes"],
            row["verdict"],
            row["why"],
        )
        for row in selection["candidates"]
    ]
    columns = ("variant", "threads", measure, "quality", "bytes", "RSS rise", "verdict", "why")
    print()
    title = "Variants on this device" + (" (measured before)" if selection.get("reused") else "")
    show_table(title, columns, rows, right=(1, 2, 3, 4, 5))
