"""Recipes: everything that decides what a model becomes, as validated data (`recipes/*.toml`).

A recipe names its data, teacher, knowledge, student and how they are trained, compressed and
quantized. Each table is the frozen parameter dataclass of one stage; a stage gets its table, the
recipe's seed and its thread count, and nothing else decides its result.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

from edgekd.declaration import check_name, find_named, load, setting
from edgekd.errors import ConfigError
from edgekd.recipe.blocks import BlockParams
from edgekd.recipe.limits import DeviceLimits, LayerChannels
from edgekd.recipe.search import SearchParams

OPTIMIZERS = ("adamw", "sgd")
FILES = {"onnx": "an ONNX teacher", "exported": "an exported teacher"}  # they predict only
TEACHERS = ("convnet", "resnet20", "resnet56", "autoencoder", "none", *FILES)
SHARES_TOLERANCE = 1e-6  # of weights that are to sum to 1
TABLE_ENTRIES = (4, 16, 256)  # what an index of 2, 4 or 8 bits names
INCLUDED = ("digits",)  # data sets that come with a package: no path


@dataclass(frozen=True)
class DataParams:
    """The data set, and how many samples leave the training split.

    name: "digits"; "image-folder"; "npz" (arrays x, y and, where there are, x_test, y_test, classes); "csv"
    (recordings: a file, or train/ and test/ of them); "function" (`package.module:function`, of the project
    or installed). path: of a folder or file, relative to the project; `--source` replaces it. A data set
    fixes its test split itself; where it does not, `test_samples` are drawn. Images: size_px and channels
    are what they are brought to (0: as they are), max_unreadable_share of them may be left out. Arrays:
    channels_last is [N, H, W, C]. Recordings: windows of window_rows rows every step_rows (0: as long as the
    window), all columns but label_column. vectors: every sample as one row of numbers, for an autoencoder.
    """

    name: str = setting("digits", choices=("digits", "image-folder", "npz", "csv", "function"))
    path: str = setting("")
    function: str = setting("")
    channels_last: bool = setting(False)
    window_rows: int = setting(128, unit="rows", minimum=2, maximum=1_000_000)
    step_rows: int = setting(0, unit="rows", minimum=0, maximum=1_000_000)
    label_column: str = setting("label")
    calibration_samples: int = setting(128, unit="samples", minimum=10, maximum=100_000)
    validation_samples: int = setting(120, unit="samples", minimum=10, maximum=1_000_000)
    test_samples: int = setting(0, unit="samples", minimum=0, maximum=1_000_000)
    size_px: int = setting(0, unit="pixels", minimum=0, maximum=4096)
    channels: str = setting("rgb", choices=("rgb", "grey"))
    max_unreadable_share: float = setting(0.01, minimum=0, maximum=0.5)
    vectors: bool = setting(False, later=True)


@dataclass(frozen=True)
class AugmentParams:
    """Random changes of a sample, each uniform within plus or minus its bound.

    shift-rotate reads shift_px and rotation_deg: bilinear, border zero. crop-flip reads pad_px (a shift by
    whole pixels, border mid-grey) and flip (mirrored or not). none: the plain sample.
    """

    shift_px: float = setting(1.0, unit="pixels", minimum=0, maximum=16)
    rotation_deg: float = setting(12.0, unit="degrees", minimum=0, maximum=180)
    kind: str = setting("shift-rotate", choices=("shift-rotate", "crop-flip", "none"))
    pad_px: int = setting(4, unit="pixels", minimum=0, maximum=64)
    flip: bool = setting(True)


@dataclass(frozen=True)
class TeacherParams:
    """The teacher's network and its training.

    model: convnet; resnet20, resnet56; autoencoder; package.module:function, which gives a torch network for
    (channels, classes), of vectors (numbers, numbers); a file that `checkpoint` names (epochs = 0): onnx, or
    exported (.pt2); or none: the student learns from the labels alone, an autoencoder from its inputs. code:
    the function's file, found by its name. inputs: what such a file is fed with, pixels as the data set feeds
    them or in 0 .. 1.
    checkpoint: weights to start from, a file relative to the project (epochs = 0: taken as they are).
    width: read by convnet and autoencoder. optimizer: sgd has Nesterov momentum. ema: share of the weights'
    running mean that is kept at each step, 0 for none.
    """

    model: str = setting("convnet")
    checkpoint: str = setting("")
    code: str = setting("")
    inputs: str = setting("as-fed", choices=("as-fed", "unit"))
    width: int = setting(32, unit="channels", minimum=4, maximum=512)
    optimizer: str = setting("adamw", choices=OPTIMIZERS)
    ema: float = setting(0.0, minimum=0, maximum=0.99999)
    epochs: int = setting(30, minimum=0, maximum=10_000)
    batch_samples: int = setting(64, unit="samples", minimum=2, maximum=65_536)
    learning_rate: float = setting(0.004, minimum=1e-8, maximum=10)
    weight_decay: float = setting(0.01, minimum=0, maximum=1)
    augment: AugmentParams = setting(AugmentParams())


@dataclass(frozen=True)
class MemberParams(TeacherParams):
    """One teacher of several ([[teachers]]): all of [teacher], and what sets it apart.

    seed: of its weights, batches and views; absent: the recipe's. weight: its share of the mean; absent in
    all: equal shares.
    """

    seed: int | None = setting(None, minimum=0, maximum=2**32 - 1)
    weight: float | None = setting(None, minimum=0, maximum=1)


AnyTeacher = TypeVar("AnyTeacher", bound=TeacherParams)


@dataclass(frozen=True)
class MixPart:
    """One knowledge directory, made here or elsewhere, and its weight in what the student is taught."""

    knowledge: str = setting()
    weight: float = setting(1.0, minimum=0, maximum=1)


@dataclass(frozen=True)
class KnowledgeParams:
    """The stored predictions: `views` augmented copies of each training sample (view 0 is the plain one).

    top_classes: how many are kept a sample where there are more than 100 classes.
    """

    views: int = setting(16, minimum=1, maximum=4096)
    top_classes: int = setting(20, unit="classes", minimum=1, maximum=65_535)
    augment: AugmentParams = setting(AugmentParams())


@dataclass(frozen=True)
class StudentParams:
    """The student's network and the hard limits that it must keep.

    channels: output channels of the stem and of each block (ds-cnn: depthwise-separable; resnet: two
    convolutions and a shortcut; autoencoder: dense layers, whose last one is as wide as a sample), in order.
    strides: one a channel entry, not read by autoencoder. width: of mobilenet (MobileNetV1), which has
    channels and strides of its own. blocks: the stages of model "blocks", which reads no other of these keys.
    branches: "qarepvgg" trains each larger convolution with a 1 x 1 one and a shortcut beside it, which are
    folded into it afterwards.
    """

    model: str = setting("ds-cnn", choices=("ds-cnn", "mobilenet", "resnet", "autoencoder", "blocks"))
    channels: tuple[int, ...] = setting((16, 32, 28), unit="channels", minimum=1, maximum=1024)
    strides: tuple[int, ...] = setting((1, 2, 1), unit="pixels", minimum=1, maximum=4)
    max_weight_bytes: int = setting(4096, unit="bytes", minimum=1)  # int8 weights and int32 biases
    max_macs: int = setting(40_000, unit="multiply-accumulates", minimum=1)
    width: float = setting(0.25, minimum=0.03, maximum=4)
    branches: str = setting("none", choices=("none", "qarepvgg"), later=True)
    blocks: tuple[BlockParams, ...] = setting((), later=True)


# Terms of a student's loss; formulas and papers: docs/methods/distillation.md.
ON_OUTPUTS = ("mse", "mae", "huber")
LOSSES = ("hard", "kd", "dkd", "dist", "logit-mse", *ON_OUTPUTS)
HINTS = ("fitnet", "attention")  # compare inner maps: the teacher itself must be there


@dataclass(frozen=True)
class LossTerm:
    """One summand of the student's loss.

    temperature: read by kd, dkd and dist. standardize: logits to mean 0 and deviation 1 a sample first.
    alpha, beta: shares of a loss of two parts (dkd: target, others; dist: inter, intra); absent: its
    paper's. to: what mse, mae and huber compare with, "labels" or "teacher" (an autoencoder's labels are
    its inputs). delta: where huber turns from square to straight. student_layer, teacher_layer: read by
    fitnet and attention, names of modules ("layers.3") whose maps are compared.
    """

    name: str = setting(choices=(*LOSSES, *HINTS))
    weight: float = setting(1.0, minimum=1e-6, maximum=10_000)
    temperature: float = setting(4.0, minimum=0.1, maximum=100)
    standardize: bool = setting(False)
    alpha: float | None = setting(None, minimum=0, maximum=1000)
    beta: float | None = setting(None, minimum=0, maximum=1000)
    to: str = setting("teacher", choices=("labels", "teacher"))
    delta: float = setting(1.0, minimum=1e-6, maximum=1e6)
    student_layer: str = setting("", later=True)
    teacher_layer: str = setting("", later=True)

    @property
    def by_labels(self) -> bool:
        """Whether it compares with the labels and asks nothing of a teacher."""
        return self.name == "hard" or (self.name in ON_OUTPUTS and self.to == "labels")


@dataclass(frozen=True)
class DistillParams:
    """How the student learns from the knowledge file.

    loss: a term's name, or a list of terms with weights of their own. By name: hard_share times the loss
    against the labels plus the rest of that term against the teacher, at `temperature`. ema: share of the
    weights' running mean that is kept at each step, 0 for none. mixup: alpha of the Beta(alpha, alpha) that
    two samples of a batch are mixed by, 0 for none.
    """

    loss: str | tuple[LossTerm, ...] = setting("kd", choices=LOSSES)
    temperature: float = setting(4.0, minimum=0.1, maximum=100)
    hard_share: float = setting(0.1, minimum=0, maximum=1)
    optimizer: str = setting("adamw", choices=OPTIMIZERS)
    ema: float = setting(0.0, minimum=0, maximum=0.99999)
    epochs: int = setting(200, minimum=1, maximum=10_000)
    batch_samples: int = setting(64, unit="samples", minimum=2, maximum=65_536)
    learning_rate: float = setting(0.02, minimum=1e-8, maximum=10)
    weight_decay: float = setting(0.03, minimum=0, maximum=1)
    mixup: float = setting(0.0, minimum=0, maximum=100, later=True)

    @property
    def terms(self) -> tuple[LossTerm, ...]:
        """The terms that are asked for; a name alone stands for hard_share of labels, the rest of it."""
        if not isinstance(self.loss, str):
            return self.loss
        name, share = self.loss, self.hard_share
        if name == "hard":
            return (LossTerm("hard"),)
        by_labels = LossTerm(name, share, to="labels") if name in ON_OUTPUTS else LossTerm("hard", share)
        by_teacher = LossTerm(name, 1.0 - share, self.temperature)
        return tuple(term for term in (by_labels, by_teacher) if term.weight > 0)

    @property
    def hints(self) -> tuple[LossTerm, ...]:
        """The terms that need the teacher itself beside the student."""
        return tuple(term for term in self.terms if term.name in HINTS)


# What `invoke report` can compare: terms against the teacher; "-std": logits standardized; the recipe's own.
ABLATIONS = ("kd", "kd-std", "dkd", "dkd-std", "dist", "logit-mse", "mse", "mae", "huber", "recipe")


@dataclass(frozen=True)
class AblationParams:
    """The losses that `invoke report` compares with labels only, each trained anew with every seed."""

    losses: tuple[str, ...] = setting(("kd", "kd-std", "dkd", "dist", "logit-mse"), choices=ABLATIONS)
    seeds: int = setting(3, minimum=1, maximum=1000)


METHODS = ("lowrank", "prune", "sparsify", "share")  # of [compress]


@dataclass(frozen=True)
class LayerEntries:
    """Table entries of one layer; layer: its weights' name in the student without ".weight"."""

    layer: str = setting()
    entries: int = setting(16, unit="values", minimum=2, maximum=256)


@dataclass(frozen=True)
class MethodTuning:
    """How one method of several is fine-tuned, in place of [compress]'s epochs and learning_rate."""

    method: str = setting(choices=METHODS)
    epochs: int = setting(60, minimum=0, maximum=10_000)
    learning_rate: float = setting(0.015, minimum=1e-8, maximum=10)


@dataclass(frozen=True)
class CompressParams:
    """What makes the trained student smaller, in order; each is fine-tuned from the knowledge file.

    lowrank: energy is the share of the squared singular values kept; rank_by "weight_bytes" or "macs" chooses
    all ranks together, so that rank_share of the whole network's are left; lowrank_layers "all" splits k x k
    convolutions, too. prune: keep is the share of prune_cost left; prune_to, in place of both, what a device
    may spend; prune_channels the widths themselves; prune_floor the least share of a layer's channels.
    sparsify: sparsity is the share of each layer's weights set to zero; "2:4" takes two of every four. share:
    entries is how many values a table holds, 16, 4 or 256 (all int8 values: the layer stays as it is);
    layer_entries: of single layers; group_channels: output channels that share a table (0: all of a layer);
    share_layers "all": dense, too. batch_norm: fine-tune (but share) with batch norm put back, which rates
    like [distill]'s need; it is folded again. tuning: other epochs and rates for single methods.
    """

    methods: tuple[str, ...] = setting((), choices=METHODS)
    energy: float = setting(0.85, minimum=0.01, maximum=1)
    epochs: int = setting(60, minimum=0, maximum=10_000)
    learning_rate: float = setting(0.015, minimum=1e-8, maximum=10)
    lowrank_layers: str = setting("pointwise", choices=("pointwise", "all"), later=True)
    rank_by: str = setting("energy", choices=("energy", "weight_bytes", "macs"), later=True)
    rank_share: float = setting(0.75, minimum=0.01, maximum=1, later=True)
    keep: float = setting(0.5, minimum=0.01, maximum=1, later=True)
    prune_cost: str = setting("macs", choices=("macs", "weight_bytes"), later=True)
    sparsity: float = setting(0.5, minimum=0.01, maximum=0.99, later=True)
    pattern: str = setting("unstructured", choices=("unstructured", "2:4"), later=True)
    entries: int = setting(16, unit="values", minimum=2, maximum=256, later=True)
    layer_entries: tuple[LayerEntries, ...] = setting((), later=True)
    group_channels: int = setting(0, unit="channels", minimum=0, maximum=65_536, later=True)
    share_layers: str = setting("conv", choices=("conv", "all"), later=True)
    prune_floor: float = setting(0.25, minimum=0.01, maximum=1, later=True)
    prune_to: DeviceLimits | None = setting(None, later=True)
    prune_channels: tuple[LayerChannels, ...] = setting((), later=True)
    batch_norm: bool = setting(False, later=True)
    tuning: tuple[MethodTuning, ...] = setting((), later=True)


@dataclass(frozen=True)
class LayerBits:
    """Bits of one layer's weights; layer: the weights' name in the float model without ".weight"."""

    layer: str = setting()
    bits: int = setting(4, unit="bits", minimum=2, maximum=8)


@dataclass(frozen=True)
class QuantizeParams:
    """How a float model becomes integers: docs/methods/quantization.md has each key's formula.

    ranges: how activations' ranges are found on the calibration split; percentile: read by "percentile" only.
    method: ptq measures and rounds; qat trains the student with the quantizer in place, `epochs` from the
    stored knowledge, from the ranges' extremes. weight_bits: of every layer, 8, 4 or 2; layer_bits: of single
    ones; max_weight_bytes: layers get fewer bits until the weights fit (0: no limit). scale_floor: the least
    scale of a channel, as a share of its layer's largest.
    """

    ranges: str = setting("minmax", choices=("minmax", "percentile", "entropy", "mse"))
    percentile: float = setting(99.99, unit="percent", minimum=50, maximum=100)
    method: str = setting("ptq", choices=("ptq", "qat"), later=True)
    epochs: int = setting(20, minimum=1, maximum=10_000, later=True)
    learning_rate: float = setting(0.002, minimum=1e-8, maximum=10, later=True)
    weight_bits: int = setting(8, unit="bits", minimum=2, maximum=8, later=True)
    layer_bits: tuple[LayerBits, ...] = setting((), later=True)
    max_weight_bytes: int = setting(0, unit="bytes", minimum=0, later=True)
    bias_correction: bool = setting(False, later=True)
    equalize: bool = setting(False, later=True)
    bias_guard: bool = setting(False, later=True)
    scale_floor: float = setting(0.0, minimum=0, maximum=1, later=True)

    @property
    def refined(self) -> bool:
        """Whether weights are rounded by more than their largest value at 8 bits."""
        chosen = self.weight_bits != 8 or self.layer_bits or self.max_weight_bytes
        return bool(chosen or self.bias_correction or self.equalize or self.bias_guard or self.scale_floor)


@dataclass(frozen=True)
class GateParams:
    """What a model may lose on its way to integers, against the student as it was distilled.

    max_accuracy_drop: of the metric, 0.01 is one point. A stage fails when the whole 95 % interval of its
    drop lies above it, and passes when all of it lies below; where the interval holds the budget, undecided =
    "pass" goes on and says so, "fail" stops. min_accuracy: the least that a model must reach (0: none).
    """

    metric: str = setting("accuracy", choices=("accuracy", "auc"))
    split: str = setting("test", choices=("validation", "test"))
    max_accuracy_drop: float = setting(0.02, minimum=0, maximum=1)
    min_accuracy: float = setting(0.0, minimum=0, maximum=1)
    undecided: str = setting("pass", choices=("pass", "fail"))


@dataclass(frozen=True)
class Recipe:
    """One model, from data to integers.

    seed feeds every random source. threads, device and precision are part of the result ("bf16": bfloat16
    autocast where the processor has it, else float32). teachers: several in place of [teacher]; their mean is
    the knowledge. mix: knowledge directories in place of any teacher. processes: how many train teacher and
    student together, each with its share of every batch; more than one are part of the result. search: among
    which students `invoke search` looks.
    """

    name: str = setting()
    description: str = setting()
    seed: int = setting(0, minimum=0, maximum=2**32 - 1)
    threads: int = setting(1, unit="threads", minimum=1, maximum=256)
    device: str = setting("cpu", choices=("cpu", "gpu"))
    precision: str = setting("fp32", choices=("fp32", "bf16"))
    data: DataParams = setting(DataParams())
    teacher: TeacherParams = setting(TeacherParams())
    knowledge: KnowledgeParams = setting(KnowledgeParams())
    student: StudentParams = setting(StudentParams())
    distill: DistillParams = setting(DistillParams())
    ablation: AblationParams = setting(AblationParams())
    compress: CompressParams = setting(CompressParams())
    quantize: QuantizeParams = setting(QuantizeParams())
    gate: GateParams = setting(GateParams())
    teachers: tuple[MemberParams, ...] = setting(())
    mix: tuple[MixPart, ...] = setting(())
    processes: int = setting(1, unit="processes", minimum=1, maximum=256)
    search: SearchParams = setting(SearchParams())


def members(recipe: Recipe) -> list[Recipe]:
    """A recipe for each teacher of `recipe`, with it alone as [teacher]; `recipe` where it has one."""
    return [replace(recipe, teacher=each, teachers=()) for each in recipe.teachers] or [recipe]


def teacher_seed(recipe: Recipe) -> int:
    """The seed of the teacher's weights, batches and views: its own where it is one of several."""
    teacher = recipe.teacher
    return recipe.seed if not isinstance(teacher, MemberParams) or teacher.seed is None else teacher.seed


def alone(recipe: Recipe) -> Recipe:
    """A recipe as `members` gives it, as plain as one that has a single [teacher] is written."""
    names = [field.name for field in fields(TeacherParams)]
    teacher = TeacherParams(**{name: getattr(recipe.teacher, name) for name in names})
    return replace(recipe, seed=teacher_seed(recipe), teacher=teacher)


def weights(recipe: Recipe) -> tuple[float, ...]:
    """Each teacher's share of the mean, in order; they sum to 1."""
    count = max(1, len(recipe.teachers))
    return tuple(1 / count if each.weight is None else each.weight for each in recipe.teachers) or (1.0,)


def load_recipe(name: str, directories: Sequence[Path]) -> Recipe:
    """The recipe `name` from the first of `directories` that has `<name>.toml`.

    Raises ConfigError for an unknown name (with the nearest), key, type or range.
    """
    path = find_named("recipe", name, directories)
    from edgekd.recipe.checks import check_together

    recipe = load(path, Recipe)
    check_name(path, recipe.name)
    check_together(recipe, path)
    return recipe


def located(recipe: Recipe, project: Path, source: str = "") -> Recipe:
    """The recipe with its files' paths made absolute: those in it are relative to the project.

    source: replaces data.path, relative to the caller's directory. Raises ConfigError where it has no use.
    """
    data = recipe.data
    if source and data.name in (*INCLUDED, "function"):
        raise ConfigError(
            f"recipe {recipe.name} brings its own samples; --source is for recipes with data.path"
        )
    path = str((project / data.path).resolve()) if data.path else ""
    if data.name == "function":
        path = str(_module_file(recipe, "data.function", data.function, project))
    path = str(Path(source).absolute()) if source else path
    if not path and data.name not in INCLUDED:
        raise ConfigError(f"recipe {recipe.name} names no data.path; set it, or give --source")
    return replace(
        recipe,
        data=replace(data, path=path),
        teacher=_located_teacher(recipe, recipe.teacher, project),
        teachers=tuple(_located_teacher(recipe, each, project) for each in recipe.teachers),
        mix=tuple(replace(part, knowledge=str((project / part.knowledge).resolve())) for part in recipe.mix),
    )


def _located_teacher(recipe: Recipe, teacher: AnyTeacher, project: Path) -> AnyTeacher:
    checkpoint = str((project / teacher.checkpoint).resolve()) if teacher.checkpoint else ""
    code = str(_module_file(recipe, "teacher.model", teacher.model, project)) if ":" in teacher.model else ""
    return replace(teacher, checkpoint=checkpoint, code=code)


def _module_file(recipe: Recipe, key: str, name: str, project: Path) -> Path:
    """The file of the module that `name`, under `key`, leads to: the project's own, else an installed one."""
    module, _, function = name.partition(":")
    if not module or not function:
        raise ConfigError(f"recipe {recipe.name}: {key} is {name!r}; write package.module:function")
    own = project.joinpath(*module.split("."))
    for file in (own.with_suffix(".py"), own / "__init__.py"):
        if file.is_file():
            return file.resolve()
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.origin or not Path(spec.origin).is_file():
        raise ConfigError(
            f"recipe {recipe.name}: module {module} of {key} is neither in {project} nor installed"
        )
    return Path(spec.origin)
