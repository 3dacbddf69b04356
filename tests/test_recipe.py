"""Recipes: the shipped ones load, and each kind of mistake is one clear sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.declaration import list_named
from edgekd.errors import ConfigError
from edgekd.recipe import LossTerm, Recipe, load_recipe

SHIPPED = Path(__file__).parent.parent / "recipes"
MINIMAL = 'name = "mine"\ndescription = "a test"\n'


def write(directory: Path, text: str, name: str = "mine") -> Path:
    (directory / f"{name}.toml").write_text(text)
    return directory


@pytest.mark.parametrize("name", sorted(list_named([SHIPPED])))
def test_a_shipped_recipe_loads(name: str) -> None:
    recipe = load_recipe(name, [SHIPPED])
    assert recipe.name == name and recipe.description


def test_what_is_not_said_has_a_default(tmp_path: Path) -> None:
    recipe = load_recipe("mine", [write(tmp_path, MINIMAL)])
    assert recipe == Recipe(name="mine", description="a test")


def test_an_earlier_directory_wins(tmp_path: Path) -> None:
    write(tmp_path, 'name = "digits"\ndescription = "my own"\n', "digits")
    assert load_recipe("digits", [tmp_path, SHIPPED]).description == "my own"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[techer]\nwidth = 3\n", "unknown key techer; did you mean teacher?"),
        ("[teacher]\nepoch = 3\n", "unknown key teacher.epoch; did you mean epochs?"),
        ('[teacher]\nepochs = "many"\n', "teacher.epochs must be int, not str"),
        ("[distill]\nepochs = 0\n", "distill.epochs is 0; it must be from 1"),
        ("[student]\nchannels = [16, 32.5]\n", "student.channels[1] must be int"),
        ("[student]\nchannels = [16, 32]\n", "student.channels has 2 entries and student.strides 3"),
        ('[compress]\nmethods = ["lowrnk"]\n', "did you mean lowrank?"),
        ('[compress]\nmethods = ["lowrank", "lowrank"]\n', "repeats an entry"),
        ('[compress]\nmethods = ["sparsify", "prune", "lowrank"]\n', "lowrank behind sparsify fills"),
        ('[compress]\nmethods = ["sparsify", "prune"]\npattern = "2:4"\n', "prune behind sparsify breaks"),
        (
            '[compress]\nmethods = ["sparsify"]\npattern = "2:4"\nsparsity = 0.6\n',
            "sparsity is 0.6; leave it",
        ),
        ('[compress]\nmethods = ["sparsify"]\npattern = "4:2"\n', "compress.pattern is '4:2'"),
        (
            '[compress]\nmethods = ["sparsify"]\nsparsity = 1.5\n',
            "compress.sparsity is 1.5; it must be from 0.01",
        ),
        ('[compress]\nmethods = ["prune"]\nkeep = 0\n', "compress.keep is 0.0; it must be from 0.01 to 1"),
        ('[compress]\nmethods = ["prune"]\nprune_cost = "mac"\n', "'mac'; did you mean macs?"),
        ('[compress]\nmethods = ["lowrank"]\nkeep = 0.4\n', "compress.keep is read by prune, which"),
        (
            '[compress]\nmethods = ["prune"]\ntuning = [{ method = "share", epochs = 2 }]\n',
            "compress.tuning names share, which methods leaves out",
        ),
        ('[compress]\nmethods = ["prune"]\nprune_to = 0.5\n', "compress.prune_to must be a table"),
        ('[compress]\nmethods = ["prune"]\nprune_to = { cycles = 0.5 }\n', "prune_to.target is missing"),
        ('[compress]\nmethods = ["prune"]\nprune_to = { target = "mcu-sim" }\n', "limits nothing; set one"),
        (
            '[compress]\nmethods = ["prune"]\nprune_to = { target = "mcu-sim", ram = 900 }\n',
            "unknown key compress.prune_to.ram; known: cycles",
        ),
        (
            '[compress]\nmethods = ["lowrank", "prune"]\nprune_to = { target = "mcu-sim", cycles = 0.5 }\n',
            "prune_to counts from the student as it was distilled; put prune first",
        ),
        (
            '[compress]\nmethods = ["prune"]\nkeep = 0.4\nprune_to = { target = "mcu-sim", cycles = 0.5 }\n',
            "compress.prune_to and compress.keep both say how narrow",
        ),
        (
            '[compress]\nmethods = ["prune"]\nprune_floor = 0.5\n'
            'prune_channels = [{ layer = "layers.0", channels = 8 }]\n',
            "prune_channels names the widths; leave prune_floor out",
        ),
        ('[compress]\nmethods = ["lowrank"]\nrank_share = 0.6\n', "rank_share is read where rank_by is"),
        ('[compress]\nmethods = ["lowrank"]\nrank_by = "ram"\n', "compress.rank_by is 'ram'"),
        ('[compress]\nmethods = ["share", "share"]\n', "repeats an entry"),
        (
            '[compress]\nmethods = ["share", "prune"]\n',
            "prune behind share moves weights out of their tables",
        ),
        ('[compress]\nmethods = ["prune", "share", "sparsify"]\n', "sparsify behind share moves weights"),
        ('[compress]\nmethods = ["share"]\nentries = 8\n', "entries is 8; indices are stored with 2, 4 or 8"),
        ('[compress]\nmethods = ["share"]\nentries = 300\n', "compress.entries is 300 values; it must be fr"),
        ('[compress]\nmethods = ["share"]\nentries = 256\n', "256 int8 values has them all"),
        (
            '[compress]\nmethods = ["share"]\n[[compress.layer_entries]]\nlayer = "a.b"\nentries = 5\n',
            "compress.layer_entries, a.b is 5; indices are stored",
        ),
        (
            '[compress]\nmethods = ["share"]\n'
            + 2 * '[[compress.layer_entries]]\nlayer = "a"\nentries = 4\n',
            "compress.layer_entries repeats a layer",
        ),
        ('[compress]\nmethods = ["prune"]\nentries = 4\n', "compress.entries is read by share, which"),
        (
            '[compress]\nmethods = ["share"]\n[quantize]\nmethod = "qat"\n',
            "quantize.method changes weights, and compress.methods has share",
        ),
        (
            '[compress]\nmethods = ["share"]\n[quantize]\nweight_bits = 4\n',
            "quantize.weight_bits changes wei",
        ),
        ('[compress]\nmethods = ["share"]\n[quantize]\nequalize = true\n', "quantize.equalize changes weig"),
        ('[distill]\nloss = "dkdd"\n', "distill.loss is 'dkdd'; did you mean dkd?"),
        ("[distill]\nloss = 3\n", "distill.loss must be str, not int"),
        ("[distill]\nloss = []\n", "distill.loss is an empty list"),
        ('[distill]\nloss = ["kd"]\n', "distill.loss[0] must be a table"),
        (
            '[[distill.loss]]\nname = "kd"\nweigth = 2\n',
            "unknown key distill.loss[0].weigth; did you mean weight?",
        ),
        ("[[distill.loss]]\nweight = 2\n", "distill.loss[0].name is missing"),
        ('[[distill.loss]]\nname = "kd"\nweight = 0\n', "distill.loss[0].weight is 0"),
        ('[[distill.loss]]\nname = "dkd"\nalpha = 0\nbeta = 0\n', "dkd has alpha and beta 0"),
        ('[ablation]\nlosses = ["hinton"]\n', "ablation.losses[0] is 'hinton'"),
        ('[quantize]\nmethod = "qta"\n', "did you mean qat?"),
        ("[quantize]\nweight_bits = 3\n", "quantize.weight_bits: 3 bits cannot be stored; take 2, 4 or 8"),
        (
            '[[quantize.layer_bits]]\nlayer = "layers.0.conv"\nbits = 5\n',
            "quantize.layer_bits, layers.0.conv: 5 bits cannot be stored",
        ),
        ('[quantize]\nlayer_bits = [{ layer = "a" }, { layer = "a" }]\n', "layer_bits repeats a layer"),
        ("[quantize]\nweight_bits = 4\nmax_weight_bytes = 900\n", "weight_bits fixes them; leave one out"),
        ('[quantize]\nmethod = "qat"\nequalize = true\n', 'quantize.equalize is for method = "ptq"'),
        ('[quantize]\nmethod = "qat"\nranges = "mse"\n', 'quantize.ranges is for method = "ptq"'),
        ("[knowledge]\naugment = 3\n", "knowledge.augment must be a table"),
        ("[knowledge\n", "not valid TOML"),
        ("seed = -1\n", "seed is -1"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("mine", [write(tmp_path, MINIMAL + text)])
    assert said in str(caught.value) and "mine.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'digit' does not exist; did you mean digits"):
        load_recipe("digit", [SHIPPED])


def test_the_name_must_be_the_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it must be 'other'"):
        load_recipe("other", [write(tmp_path, MINIMAL, "other")])


def test_a_list_of_losses(tmp_path: Path) -> None:
    text = '[[distill.loss]]\nname = "hard"\n[[distill.loss]]\nname = "dkd"\nweight = 2\nstandardize = true\n'
    loss = load_recipe("mine", [write(tmp_path, MINIMAL + text)]).distill.loss
    assert loss == (LossTerm("hard"), LossTerm("dkd", 2.0, standardize=True))
