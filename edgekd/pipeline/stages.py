"""STAGES: one row a stage: what it is made from, what it reads of a request, what makes it.

The functions that do the work live in their parts (`learn`, `quantize`, `mcu`, ...) and know nothing
of this package; they are imported when their stage runs, so that a cached result costs no import.
Raise a stage's `version` when its result changes for the same parameters: a test compares the digest
of the code behind each stage with the committed one (tests/stage_digests.json).
"""

from __future__ import annotations

from edgekd.pipeline import benching, costing, evaluating, learning, quantizing, shipping
from edgekd.pipeline.request import Request, Stage, versions

_EXPORT_TOOLS = ("torch", "onnx", "onnxscript", "onnxsim")

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "dataset",
            version=2,
            inputs=lambda request: {},
            params=learning.dataset_params,
            run=learning.run_dataset,
            tools=lambda request: versions("scikit-learn", "numpy", "pillow"),
        ),
        Stage(
            "teacher",
            version=3,
            inputs=learning.teacher_inputs,
            params=learning.teacher_params,
            run=learning.run_teacher,
            tools=learning.training_tools,
        ),
        Stage(
            "knowledge",
            version=2,
            inputs=learning.knowledge_inputs,
            params=learning.knowledge_params,
            run=learning.run_knowledge,
            tools=learning.training_tools,
        ),
        Stage(
            "distill",
            version=2,
            inputs=learning.distill_inputs,
            params=learning.distill_params,
            run=learning.run_distill,
            tools=learning.training_tools,
        ),
        Stage(
            "ablation",
            version=4,
            inputs=lambda request: {"data": "dataset", "knowledge": "knowledge"},
            params=lambda request: learning.seeded(request, "student", "distill", "ablation"),
            run=learning.run_ablation,
            tools=learning.training_tools,
        ),
        Stage(
            "widths",
            version=2,
            inputs=lambda request: {"student": "distill"},
            params=costing.widths_params,
            run=costing.run_widths,
            tools=lambda request: versions("torch", "torch-pruning", "numpy"),
        ),
        Stage(
            "compress",
            version=2,
            inputs=learning.compress_inputs,
            params=learning.compress_params,
            run=learning.run_compress,
            tools=learning.compress_tools,
        ),
        Stage(
            "evaluate-student",
            version=1,
            inputs=evaluating.student_inputs("distill", paired=False),
            params=evaluating.student_params,
            run=evaluating.run_student,
            tools=learning.training_tools,
        ),
        Stage(
            "evaluate-compressed",
            version=1,
            inputs=evaluating.student_inputs("compress", paired=True),
            params=evaluating.student_params,
            run=evaluating.run_student,
            tools=learning.training_tools,
        ),
        Stage(
            "evaluate-float",
            version=1,
            inputs=evaluating.float_model_inputs,
            params=evaluating.params,
            run=evaluating.run_float,
            tools=evaluating.float_tools,
        ),
        Stage(
            "evaluate-int8",
            version=1,
            inputs=evaluating.int8_inputs,
            params=evaluating.params,
            run=evaluating.run_int8,
            tools=evaluating.int8_tools,
        ),
        Stage(
            "simplify",
            version=2,
            inputs=lambda request: {"student": "compress", "data": "dataset"},
            params=lambda request: {},
            run=learning.run_simplify,
            tools=lambda request: versions(*_EXPORT_TOOLS),
        ),
        Stage(
            "import",
            version=1,
            inputs=lambda request: {},
            params=shipping.import_params,
            run=shipping.run_import,
        ),
        Stage(
            "userdata",
            version=1,
            inputs=lambda request: {},
            params=shipping.userdata_params,
            run=shipping.run_userdata,
        ),
        Stage(
            "quantize",
            version=2,
            inputs=quantizing.quantize_inputs,
            params=quantizing.stage_params,
            run=quantizing.run_quantize,
            tools=quantizing.stage_tools,
        ),
        Stage(
            "export",
            version=18,
            inputs=shipping.export_inputs,
            params=shipping.export_params,
            run=shipping.run_export,
            tools=shipping.export_tools,
        ),
        Stage(
            "build",
            version=7,
            inputs=lambda request: {"export": "export"},
            params=lambda request: shipping.machine_params(request) | {"compiler": request.compiler},
            run=shipping.run_build,
            tools=shipping.compiler_tools,
        ),
        Stage(
            "bench",
            version=7,
            inputs=benching.bench_inputs,
            params=benching.bench_params,
            run=benching.run_bench,
            tools=benching.bench_tools,
        ),
    )
}


def stage_of(request: Request) -> str:
    """The last stage of a chain for `request`'s target: what `graph` shows."""
    return (
        "bench"
        if request.target and request.target.kind == "mcu"
        else "export"
        if request.target
        else "quantize"
    )
