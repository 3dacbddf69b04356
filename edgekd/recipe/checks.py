"""What no single field of a recipe can say: keys that must agree with each other, one sentence each."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from edgekd.declaration import suggest
from edgekd.errors import ConfigError
from edgekd.recipe import (
    FILES,
    ON_OUTPUTS,
    SHARES_TOLERANCE,
    TABLE_ENTRIES,
    TEACHERS,
    CompressParams,
    QuantizeParams,
    Recipe,
    TeacherParams,
)
from edgekd.recipe.limits import LIMITED
from edgekd.recipe.search import SearchParams


def check_together(recipe: Recipe, path: Path) -> None:
    """What no single field can say: keys that must agree with each other."""
    channels, strides = recipe.student.channels, recipe.student.strides
    autoencoder = recipe.student.model == "autoencoder"
    _check_blocks(recipe, path)
    _check_search(recipe.search, path)
    if not autoencoder and (len(channels) < 2 or len(channels) != len(strides)):
        raise ConfigError(
            f"{path}: student.channels has {len(channels)} entries and student.strides {len(strides)}; "
            "give both the same number, two at least"
        )
    _check_teacher(recipe.teacher, "teacher", path)
    for index, each in enumerate(recipe.teachers):
        _check_teacher(each, f"teachers[{index}]", path)
    _check_shares(recipe, path)
    _check_processes(recipe, path)
    if not recipe.distill.loss:
        raise ConfigError(f"{path}: distill.loss is an empty list; name one term at least")
    for term in recipe.distill.loss if isinstance(recipe.distill.loss, tuple) else ():
        if term.alpha == 0 and term.beta == 0:
            raise ConfigError(
                f"{path}: distill.loss: {term.name} has alpha and beta 0; give one of them more"
            )
    _check_teaching(recipe, path)
    if recipe.distill.hints:
        _check_hints(recipe, path)
    if autoencoder or recipe.data.vectors:
        _check_autoencoder(recipe, path)
    _check_compress(recipe.compress, path)
    _check_quantize(recipe.quantize, path)
    if "share" in recipe.compress.methods:
        _check_shared_integers(recipe.quantize, path)


def _check_blocks(recipe: Recipe, path: Path) -> None:
    """Blocks where the model is made of them, and numbers that a block can have."""
    given, model = recipe.student.blocks, recipe.student.model
    if (model == "blocks") != bool(given):
        raise ConfigError(
            f"{path}: [[student.blocks]] belongs to student.model blocks and the model is {model}; "
            "give both, or neither"
        )
    for index, block in enumerate(given):
        if block.kind == "shrink" and block.stride == 1:
            raise ConfigError(
                f"{path}: student.blocks[{index}]: shrink of 1 pixel does nothing; leave it out"
            )
        if block.kind == "bottleneck" and block.channels % block.expansion:
            raise ConfigError(
                f"{path}: student.blocks[{index}]: {block.channels} channels are no multiple of expansion "
                f"{block.expansion}; take a multiple"
            )


def _check_search(params: SearchParams, path: Path) -> None:
    """Lists with something to choose from, and bits that an index can have."""
    for field in fields(params):
        value = getattr(params, field.name)
        if isinstance(value, tuple) and (not value or len(set(value)) != len(value)):
            why = "repeats a choice" if value else "is empty"
            raise ConfigError(f"{path}: search.{field.name} {why}; name each choice once")
    wrong = [bits for bits in params.bits if bits not in (2, 4, 8)]
    if wrong:
        raise ConfigError(f"{path}: search.bits: {wrong[0]} bits cannot be stored; take 2, 4 or 8")


def _check_compress(params: CompressParams, path: Path) -> None:
    """A list of methods in which none undoes another, with the keys that its methods read."""
    methods = params.methods
    if len(set(methods)) != len(methods):
        raise ConfigError(f"{path}: compress.methods repeats an entry; name each method once")
    behind = methods[methods.index("sparsify") + 1 :] if "sparsify" in methods else ()
    if "lowrank" in behind:
        raise ConfigError(
            f"{path}: compress.methods: lowrank behind sparsify fills the zeros again; put it in front"
        )
    if params.pattern == "2:4":
        if "prune" in behind:
            raise ConfigError(
                f"{path}: compress.methods: prune behind sparsify breaks the fours of 2:4; put it in front"
            )
        if params.sparsity != 0.5:
            raise ConfigError(
                f"{path}: compress.pattern 2:4 zeroes half of the weights, and compress.sparsity is "
                f"{params.sparsity:g}; leave it out"
            )
    if "share" in methods:
        _check_share(params, path)
    defaults = CompressParams()
    for key, method in _READ_BY.items():
        if methods and method not in methods and getattr(params, key) != getattr(defaults, key):
            raise ConfigError(
                f"{path}: compress.{key} is read by {method}, which compress.methods leaves out; "
                "add the method, or leave the key out"
            )
    if params.rank_by == "energy" and params.rank_share != defaults.rank_share:
        raise ConfigError(
            f"{path}: compress.rank_share is read where rank_by is weight_bytes or macs; set rank_by, too"
        )
    tuned = [each.method for each in params.tuning]
    for method in tuned:
        if method not in methods or tuned.count(method) > 1:
            raise ConfigError(
                f"{path}: compress.tuning names {method}, which methods leaves out or which it repeats; "
                "give each method of the list one row at most"
            )
    _check_prune(params, path)


def _check_prune(params: CompressParams, path: Path) -> None:
    """One way to say how narrow, and a device's figures only for the student as it was distilled."""
    defaults, asked = CompressParams(), params.prune_to
    ways = [key for key in ("prune_to", "prune_channels") if getattr(params, key) != getattr(defaults, key)]
    shares = [key for key in ("keep", "prune_cost") if getattr(params, key) != getattr(defaults, key)]
    if len(ways) + bool(shares) > 1:
        said = " and ".join(f"compress.{key}" for key in (*ways, *shares))
        raise ConfigError(f"{path}: {said} both say how narrow prune is to be; leave one out")
    if params.prune_channels and params.prune_floor != defaults.prune_floor:
        raise ConfigError(f"{path}: compress.prune_channels names the widths; leave prune_floor out")
    if asked is None:
        return
    if not asked.asked:
        raise ConfigError(f"{path}: compress.prune_to limits nothing; set one of {', '.join(LIMITED)} in it")
    if params.methods[:1] != ("prune",):
        raise ConfigError(
            f"{path}: compress.prune_to counts from the student as it was distilled; put prune first in "
            "compress.methods, or take keep"
        )


def _check_share(params: CompressParams, path: Path) -> None:
    """Tables that an index can name, in a network that nothing changes any more."""
    behind = params.methods[params.methods.index("share") + 1 :]
    if behind:
        raise ConfigError(
            f"{path}: compress.methods: {behind[0]} behind share moves weights out of their tables; "
            "put share last"
        )
    several = [("entries", params.entries)]
    several += [(f"layer_entries, {each.layer}", each.entries) for each in params.layer_entries]
    for where, entries in several:
        if entries not in TABLE_ENTRIES:
            raise ConfigError(
                f"{path}: compress.{where} is {entries}; indices are stored with 2, 4 or 8 bits, so a table "
                "has 4 or 16 entries, or 256 where weights stay as they are"
            )
    if min(entries for _, entries in several) == TABLE_ENTRIES[-1]:
        raise ConfigError(
            f"{path}: compress.entries: a table of 256 int8 values has them all, and an index takes the byte "
            "that the weight took; take 16 or 4, or leave share out"
        )
    layers = [each.layer for each in params.layer_entries]
    if len(set(layers)) != len(layers):
        raise ConfigError(f"{path}: compress.layer_entries repeats a layer; name each once")


def _check_shared_integers(params: QuantizeParams, path: Path) -> None:
    """What would move weights off the tables that they were trained with."""
    taken = {"method": params.method == "qat", "weight_bits": params.weight_bits != 8}
    taken |= {name: bool(getattr(params, name)) for name in ("layer_bits", "max_weight_bytes", "equalize")}
    for key, is_set in taken.items():
        if is_set:
            raise ConfigError(
                f"{path}: quantize.{key} changes weights, and compress.methods has share, which trained them "
                "with their tables; leave one out"
            )


# Key of [compress] -> the method that reads it. (energy is older than this table: any recipe may have it.)
_READ_BY = {
    "lowrank_layers": "lowrank",
    "rank_by": "lowrank",
    "rank_share": "lowrank",
    "keep": "prune",
    "prune_cost": "prune",
    "prune_floor": "prune",
    "prune_to": "prune",
    "prune_channels": "prune",
    "sparsity": "sparsify",
    "pattern": "sparsify",
    "entries": "share",
    "layer_entries": "share",
    "group_channels": "share",
    "share_layers": "share",
}


def _check_quantize(params: QuantizeParams, path: Path) -> None:
    """Bits that an index can have, each layer once, and no key that the method does not read."""
    for where, bits in [
        ("weight_bits", params.weight_bits),
        *((f"layer_bits, {each.layer}", each.bits) for each in params.layer_bits),
    ]:
        if bits not in (2, 4, 8):
            raise ConfigError(f"{path}: quantize.{where}: {bits} bits cannot be stored; take 2, 4 or 8")
    layers = [each.layer for each in params.layer_bits]
    if len(set(layers)) != len(layers):
        raise ConfigError(f"{path}: quantize.layer_bits repeats a layer; name each once")
    if params.max_weight_bytes and params.weight_bits != 8:
        raise ConfigError(
            f"{path}: quantize.max_weight_bytes chooses bits and weight_bits fixes them; leave one out"
        )
    unread = [name for name in ("bias_correction", "equalize", "scale_floor") if getattr(params, name)]
    if params.method == "qat" and (unread or params.ranges != "minmax"):
        key = unread[0] if unread else "ranges"
        raise ConfigError(f'{path}: quantize.{key} is for method = "ptq"; leave it out')


def _check_teacher(teacher: TeacherParams, where: str, path: Path) -> None:
    if ":" not in teacher.model and teacher.model not in TEACHERS:
        raise ConfigError(f"{path}: {where}.model is {teacher.model!r}{suggest(teacher.model, TEACHERS)}")
    if teacher.code:
        raise ConfigError(f"{path}: {where}.code is found by {where}.model's name; leave it out")
    if teacher.model in FILES and (teacher.epochs or not teacher.checkpoint):
        raise ConfigError(
            f"{path}: {FILES[teacher.model]} is a file and cannot be trained; "
            f"set {where}.checkpoint and epochs = 0"
        )


def _check_shares(recipe: Recipe, path: Path) -> None:
    """Several teachers or several directories: which may stand together, and that weights are shares."""
    if recipe.teachers and recipe.teacher != TeacherParams():
        raise ConfigError(f"{path}: it has [teacher] and [[teachers]]; move [teacher] into the list")
    if recipe.mix and (recipe.teachers or recipe.teacher != TeacherParams()):
        raise ConfigError(
            f"{path}: [[mix]] takes knowledge that is there; leave the teachers out, or [[mix]]"
        )
    given = [each.weight for each in recipe.teachers if each.weight is not None]
    if given and len(given) != len(recipe.teachers):
        raise ConfigError(f"{path}: some of [[teachers]] have a weight; give one to each of them, or to none")
    for table, shares in (("teachers", given), ("mix", [part.weight for part in recipe.mix])):
        if shares and (min(shares) <= 0 or abs(sum(shares) - 1) > SHARES_TOLERANCE):
            said = ", ".join(f"{share:g}" for share in shares)
            raise ConfigError(
                f"{path}: the weights of [[{table}]] are {said}; take shares above 0 that sum to 1"
            )


def _check_processes(recipe: Recipe, path: Path) -> None:
    batches = {f"teachers[{n}]": each.batch_samples for n, each in enumerate(recipe.teachers)}
    batches |= {"teacher": recipe.teacher.batch_samples, "distill": recipe.distill.batch_samples}
    for table, batch in batches.items():
        if batch % recipe.processes:
            raise ConfigError(
                f"{path}: {table}.batch_samples is {batch}, which {recipe.processes} processes cannot share; "
                "take a multiple"
            )


def _check_teaching(recipe: Recipe, path: Path) -> None:
    """What a student is taught with must be there."""
    given = [each.model for each in recipe.teachers or (recipe.teacher,)]
    if "none" in given and recipe.teachers:
        raise ConfigError(f"{path}: one of [[teachers]] is none; leave it out of the list")
    if "autoencoder" in given and recipe.student.model != "autoencoder":
        raise ConfigError(f"{path}: an autoencoder teaches no classes; name another teacher.model")
    asking = [term.name for term in recipe.distill.terms if not term.by_labels]
    if recipe.teacher.model == "none" and asking:
        raise ConfigError(
            f"{path}: distill.loss: {asking[0]} compares with a teacher, and teacher.model is none; "
            'name a teacher, or learn from labels: loss = "hard", of vectors "mse" with hard_share = 1'
        )


def _check_hints(recipe: Recipe, path: Path) -> None:
    """Inner maps are compared by layers with names, and not with files of other makers."""
    for term in recipe.distill.hints:
        if not term.student_layer or not term.teacher_layer:
            raise ConfigError(f"{path}: distill.loss: {term.name} compares maps; set both of its _layer keys")
        if recipe.mix or recipe.teachers:
            raise ConfigError(
                f"{path}: distill.loss: {term.name} looks into one teacher; leave the term out, or have one"
            )
        if recipe.teacher.model in FILES:
            raise ConfigError(
                f"{path}: distill.loss: {term.name} looks into the teacher, and "
                f"{FILES[recipe.teacher.model]} shows its outputs alone; leave the term out"
            )
    if len(recipe.distill.hints) == len(recipe.distill.terms):
        raise ConfigError(f"{path}: distill.loss has hints alone, which teach no answer; add kd or hard")


def _check_autoencoder(recipe: Recipe, path: Path) -> None:
    """An autoencoder gives its input again: it needs vectors, losses on real outputs, and AUC."""
    teachers, kinds = recipe.teachers or (recipe.teacher,), {recipe.knowledge.augment.kind}
    kinds |= {each.augment.kind for each in teachers if each.model != "none" and each.epochs}
    images = {"convnet", "resnet20", "resnet56"} & {each.model for each in teachers}
    wrong = [term.name for term in recipe.distill.terms if term.name not in ON_OUTPUTS]
    needs = (
        (recipe.student.model == "autoencoder", 'student.model = "autoencoder" with data.vectors = true'),
        (recipe.data.vectors, "data.vectors = true: it takes samples as rows of numbers"),
        (kinds == {"none"}, 'augment = { kind = "none" }: vectors are not moved'),
        (not images, 'teacher.model "autoencoder" or "none"'),
        (not recipe.mix, "a teacher, or none, in place of [[mix]]"),
        (not wrong, f"distill.loss {', '.join(ON_OUTPUTS)}, not {', '.join(wrong)}"),
        (recipe.gate.metric == "auc", 'gate.metric = "auc": it has no classes'),
    )
    for held, needed in needs:
        if not held:
            raise ConfigError(f"{path}: an autoencoder needs {needed}")
