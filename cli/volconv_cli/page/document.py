"""A report as a page: the same facts as its JSON, each number with the key under which it stands there."""

from __future__ import annotations

import math
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from volconv.engines.cpu.plan import SMALL
from volconv.memory import in_words
from volconv_cli.page.facts import Facts, grouped, matrix, percent, short, spent
from volconv_cli.page.figures import bar, legend, pictures
from volconv_cli.page.html import Html, joined, tag
from volconv_cli.text import counted, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volconv_cli.page.pictures import Shown

#: Nothing is loaded, and nothing runs, whatever stands in a page.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

_AXES = "DHW"


def document(report: dict[str, Any], shown: Sequence[tuple[Shown, Shown] | None], commands: Sequence[str]) -> str:
    """The page of a :func:`volconv.report.report_document`; of each run slices before and after, and its command."""
    runs = report["runs"]
    title = "volconv apply: " + (f"{len(runs)} files" if len(runs) != 1 else " + ".join(runs[0]["inputs"]))
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    sections = [
        _section(number, run, pair, command)
        for number, (run, pair, command) in enumerate(zip(runs, shown, commands, strict=True), 1)
    ]
    style = files("volconv_cli.page").joinpath("page.css").read_text(encoding="utf-8")
    head = joined(
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html('<meta name="color-scheme" content="light dark">'),
        tag("title", title),
        Html(f"<style>{style}</style>"),
    )
    body = joined(
        tag("header", tag("h1", "volconv apply"), tag("p", versions, class_="small")),
        _overview(runs) if len(runs) != 1 else "",
        *sections,
    )
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>{body}</body>\n</html>\n'


def _overview(runs: Sequence[dict[str, Any]]) -> Html:
    rows = []
    for number, run in enumerate(runs, 1):
        seconds = run.get("seconds")
        rows.append(
            tag(
                "tr",
                tag("td", tag("a", " + ".join(run["inputs"]), href=f"#run-{number}"), class_="name"),
                tag("td", run["status"], class_=run["status"]),
                tag("td", spent(seconds["total"]) if seconds else "", class_="number"),
            )
        )
    statuses = [run["status"] for run in runs]
    counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
    head = tag("thead", tag("tr", *(tag("th", name) for name in ("input", "result", "time"))))
    return tag(
        "section", tag("h2", f"{len(runs)} files: {counts}"), tag("table", head, tag("tbody", *rows), class_="files")
    )


def _section(number: int, run: dict[str, Any], pair: tuple[Shown, Shown] | None, command: str) -> Html:
    facts = Facts(run)
    parts: list[Html] = []
    if run["status"] == "failed":
        parts = [tag("p", facts("error.message"), class_="failed")]
        parts += [tag("p", facts("error.hint"))] if run["error"]["hint"] else []
    elif run["status"] == "left":
        parts = [tag("p", "Not begun, or not finished: the batch ended before.")]
    else:
        parts = [
            _summary(facts),
            *([] if pair is None else [_part("Before and after", *pictures(*pair))]),
            _part("Shape", _shape(facts)),
            _part("Geometry", _geometry(facts)),
            _part("Algorithm", _algorithm(facts)),
            *([_part("Time", _time(facts))] if run["seconds"] else []),
            _part("Memory", _memory(facts)),
            _part("Values and notes", _counts(facts)),
        ]
    add = " The output is there now: add -f to replace it." if run["status"] in ("done", "skipped") else ""
    again = _part("To repeat it", tag("pre", tag("code", command)), tag("p", f"In the same folder.{add}"))
    names = joined(" + ".join(run["inputs"]), " → ", run["output"])
    status = tag("span", run["status"], class_=f"status {run['status']}")
    return tag("section", tag("h2", names, " ", status), *parts, again, id=f"run-{number}")


def _part(name: str, *content: object) -> Html:
    return tag("div", tag("h3", name), *content, class_="part")


def _summary(facts: Facts) -> Html:
    pairs = [
        ("input", joined(facts("source.shape"), " ", facts("source.dtype"))),
        ("output", joined(facts("target.shape"), " ", facts("target.dtype"))),
        ("algorithm", facts("algorithm.name")),
    ]
    if facts["seconds"]:
        pairs.append(("time", facts("seconds.total", spent)))
    if facts["peak_memory"] is not None:
        pairs.append(("memory", facts("peak_memory", in_words)))
    return _list(pairs, "summary")


def _shape(facts: Facts) -> Html:
    low, high = "parameters.padding_low", "parameters.padding_high"
    kernel, stride, dilation = (f"parameters.{name}" for name in ("kernel_size", "stride", "dilation"))
    box = facts["roi"]
    rows: list[tuple[str, Sequence[Html | str]]] = [
        ("input", facts.row("source.shape")),
        ("pad low", facts.row(low)),
        ("pad high", facts.row(high)),
        ("kernel", facts.row(kernel)),
        ("dilation", facts.row(dilation)),
        ("effective kernel", facts.row("parameters.effective_kernel")),
        ("stride", facts.row(stride)),
    ]
    # The axes of shapes are N, C, D, H, W.
    rows[0] = ("input", [facts(f"source.shape.{axis + 2}") for axis in range(3)])
    whole = [_outputs(facts, axis) for axis in range(3)]
    if box is None:
        outputs: list[Html | str] = [facts(f"target.shape.{axis + 2}") for axis in range(3)]
        rows.append(("output", outputs))
    else:
        outputs = [str(count) for count in whole]
        rows.append(("outputs in all", outputs))
        rows.append(("first of the region", facts.row("roi.origin")))
        rows.append(("output (region)", [facts(f"target.shape.{axis + 2}") for axis in range(3)]))
    filled = [
        tag(
            "li",
            tag("b", _AXES[axis]),
            ": floor((",
            *(facts(f"source.shape.{axis + 2}"), " + ", facts(f"{low}.{axis}"), " + ", facts(f"{high}.{axis}")),
            *(" − ", facts(f"{dilation}.{axis}"), "·(", facts(f"{kernel}.{axis}"), " − 1) − 1) / "),
            *(facts(f"{stride}.{axis}"), ") + 1 = ", tag("b", outputs[axis])),
        )
        for axis in range(3)
    ]
    formula = "output = floor((input + pad low + pad high − dilation·(kernel − 1) − 1) / stride) + 1"
    more = joined(
        "Channels ",
        *(facts("parameters.in_channels"), " → ", facts("parameters.out_channels")),
        *("; groups ", facts("parameters.groups"), "; padding mode ", facts("parameters.padding_mode"), "; "),
        *(facts("weights", grouped), " parameters; ", facts("multiply_adds", grouped), " multiply-adds."),
    )
    return joined(_table(["", *_AXES], rows), tag("p", formula), tag("ul", *filled, class_="formula"), tag("p", more))


def _outputs(facts: Facts, axis: int) -> int:
    def of(name: str) -> int:
        return int(facts[f"parameters.{name}.{axis}"])

    room = facts[f"source.shape.{axis + 2}"] + of("padding_low") + of("padding_high") - of("effective_kernel")
    return int(room // of("stride") + 1)


def _geometry(facts: Facts) -> Html:
    ends = ("source", "target")
    rows: list[tuple[str, Sequence[Html | str]]] = [
        (name, [facts(f"{end}.{key}", shown) for end in ends])
        for name, key, shown in (
            ("shape (N,C,D,H,W)", "shape", None),
            ("spacing (D,H,W)", "geometry.spacing", None),
            ("origin (z,y,x)", "geometry.origin", None),
            ("unit", "geometry.unit", None),
            ("affine (from x,y,z)", "geometry.affine", matrix),
            ("time step (s)", "time_step", None),
            ("dtype", "dtype", None),
            ("slope", "slope", None),
            ("intercept", "intercept", None),
            ("bytes", "bytes", size),
            ("format", "format", None),
            ("file's axes", "axes", None),
            ("compression", "compression", None),
        )
        if any(facts[f"{end}.{key}"] is not None for end in ends)
    ]
    return _table(["", "before", "after"], rows, "ends")


def _algorithm(facts: Facts) -> Html:
    name, costs = facts["algorithm.name"], facts["algorithm.predicted_seconds"]
    least = min(costs.values(), default=0.0)
    rows: list[tuple[str, Sequence[Html | str]]] = []
    for other, seconds in sorted(costs.items(), key=lambda item: float(item[1])):
        times = f"×{seconds / least:.3g}" if least else ""
        label = f"{other} (taken)" if other == name else other
        rows.append((label, [facts(f"algorithm.predicted_seconds.{other}", short), times]))
    where = "on a GPU" if facts["backend"] == "cupy" else "on one thread of a nominal machine"
    why = "it was asked for"
    if costs.get(name) == least:
        why = "it is predicted to be the fastest" if len(costs) > 1 else "nothing else was to choose from"
    elif name == "gemm" and facts["multiply_adds"] <= SMALL:
        why = "so small a job is done before compiled loops would be loaded"
    said = joined(facts("algorithm.name"), f": {why}. Computed in ", facts("compute_dtype"), " by ", facts("backend"))
    pairs: list[tuple[str, object]] = [
        ("kernel", joined(facts("kernel.spec"), ", ", facts("kernel.shape"), " ", facts("kernel.dtype"))),
        ("its SHA-256", facts("kernel.sha256")),
    ]
    if facts["bias"] is not None:
        pairs += [("bias", joined(facts("bias.spec"), ", ", facts("bias.shape"), " ", facts("bias.dtype")))]
        pairs += [("its SHA-256", facts("bias.sha256"))]
    keys = ("padding_value", "flip_kernel", "weight_layout")
    pairs += [(key.replace("_", " "), facts(f"parameters.{key}")) for key in keys if facts[f"parameters.{key}"]]
    pairs += [(key, facts(key)) for key in ("activation", "reduce", "mask", "outside") if facts[key] is not None]
    pairs += [("nan", facts("nan")), ("threads", facts("plan.threads"))]
    if facts["levels"] is not None:
        pairs.append(("levels of the output", facts("levels")))
    if facts["device"] is not None:
        pairs.append(("GPU", facts("device.name")))
    return joined(
        tag("p", said, "."), _table(["predicted", f"seconds {where}", "of the fastest"], rows), _list(pairs, "pairs")
    )


def _time(facts: Facts) -> Html:
    keys = ("read", "compute", "write")
    seconds = [float(facts[f"seconds.{key}"]) for key in keys]
    total = float(facts["seconds.total"])
    rest = max(0.0, total - math.fsum(seconds))
    named = [
        (f"waited for {'reading' if key == 'read' else 'computing' if key == 'compute' else 'writing'} ", key)
        for key in keys
    ]
    entries = [joined(what, facts(f"seconds.{key}", spent)) for what, key in named]
    entries.append(joined(f"the rest {spent(rest)}: headers, kernel, plan, libraries"))
    said = joined(
        "In all ",
        facts("seconds.total", spent),
        "; predicted ",
        facts("plan.predicted_seconds", spent),
    )
    parts = [said, " on a nominal machine."]
    if facts["cluster"] is not None:
        parts = [said, " for the first of ", facts("cluster.tasks", lambda n: counted(n, "task")), ". "]
        parts += [facts("cluster.resumed", lambda n: counted(n, "task")), " had been done by a run before this one."]
    if facts["device"] is not None and facts["device.seconds"] is not None:
        parts += [" On the GPU, at the same time: copies there ", facts("device.seconds.upload", spent)]
        parts += [", kernels ", facts("device.seconds.compute", spent)]
        parts += [", copies back ", facts("device.seconds.download", spent), "."]
    return joined(tag("p", *parts), bar([*seconds, rest], total), legend(entries))


def _memory(facts: Facts) -> Html:
    names = ("libraries", "weights", "threads", "files", "blocks")
    memory = facts["plan.memory"]
    entries = [joined(f"{name} ", facts(f"plan.memory.{name}", in_words)) for name in names]
    parts: list[object] = ["Planned ", facts("plan.memory.peak", in_words), " at most, of "]
    parts += [facts("plan.memory.bound", in_words), " that were allowed"]
    if facts["peak_memory"] is not None:
        parts += ["; the most there was so far is ", facts("peak_memory", in_words), " (the mark)"]
    blocks = joined(
        *(
            facts("plan.blocks", lambda n: counted(n, "block")),
            ", ",
            facts("plan.blocks_held"),
            " held at a time; read ",
        ),
        *(facts("plan.traffic.read_bytes", size), " of voxels (", facts("plan.traffic.halo", percent)),
        *(" more than once), written ", facts("plan.traffic.written_bytes", size), "; temporary files "),
        *(facts("plan.spool.source", size), " for the input, ", facts("plan.spool.mask", size), " for the mask, "),
        *(facts("plan.spool.target", size), " for the output."),
    )
    drawn = bar([float(memory[name]) for name in names], float(memory["peak"]), facts["peak_memory"])
    return joined(tag("p", *parts, "."), drawn, legend(entries), tag("p", blocks))


def _counts(facts: Facts) -> Html:
    parts = []
    if facts["counts"] is not None:
        told = [("saturated", "saturated"), ("not_a_number", "NaN, stored as 0"), ("non_finite", "not finite")]
        pairs = [(words, facts(f"counts.{key}", grouped)) for key, words in told]
        parts.append(_list([*pairs, ("memory ran out", facts("halvings", lambda n: counted(n, "time")))], "pairs"))
    notes = [tag("li", facts(f"notes.{i}")) for i in range(len(facts["notes"]))]
    parts.append(tag("ul", *notes) if notes else tag("p", "No notes: nothing was assumed or left out."))
    return joined(*parts)


def _table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Html | str]]], kind: str = "") -> Html:
    head = tag("tr", *(tag("th", name, scope="col") for name in heads))
    body = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            *(tag("td", cell, class_="number") for cell in cells),
            class_="result" if name.startswith("output") else None,
        )
        for name, cells in rows
    ]
    return tag("table", tag("thead", head), tag("tbody", *body), class_=kind or None)


def _list(pairs: Sequence[tuple[str, object]], kind: str) -> Html:
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs), class_=kind)
