"""Teachers' networks, and checkpoints from elsewhere."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edgekd.errors import ArtifactError, ConfigError
from edgekd.learn.checkpoint import load_checkpoint
from edgekd.learn.networks import NETWORKS, Rescale, build
from edgekd.learn.torch_tools import fill, predict


class Evil:
    """What a checkpoint may hold that runs when it is read."""

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return (Path.touch, (Path("/tmp/edgekd-code-ran"),))


@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - {"autoencoder"}))
def test_every_classifier_gives_logits(name: str) -> None:
    before = torch.get_rng_state()
    net = build(name, 3, 7, 8)
    assert torch.equal(before, torch.get_rng_state())
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_an_autoencoder_gives_its_input_again() -> None:
    assert build("autoencoder", 12, 0, 8)(torch.zeros(2, 12)).shape == (2, 12)


def test_resnets_have_the_papers_size() -> None:
    """He et al. 2015, table 6: 0.27 M and 0.85 M parameters."""
    assert sum(p.numel() for p in build("resnet20", 3, 10, 0).parameters()) == 269_722
    assert sum(p.numel() for p in build("resnet56", 3, 10, 0).parameters()) == 853_018


def test_rescaling_is_the_published_one() -> None:
    byte = np.arange(256, dtype=np.float32)
    x = torch.from_numpy((byte - 128) / 64).reshape(1, 1, 1, 256).expand(1, 3, 1, 256)
    for channel, (mean, deviation) in enumerate(((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))):
        expected = (byte / 255 - mean) / deviation
        assert np.allclose(Rescale()(x)[0, channel, 0].numpy(), expected, atol=1e-5)


def test_weights_are_found_in_every_usual_form(tmp_path: Path) -> None:
    weights = {"a.weight": torch.ones(2), "a.bias": torch.zeros(1)}
    save_file(weights, tmp_path / "w.safetensors")
    torch.save(weights, tmp_path / "plain.pt")
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in weights.items()}, "epoch": 3}, tmp_path / "nested.th"
    )
    for name in ("w.safetensors", "plain.pt", "nested.th"):
        found = load_checkpoint(tmp_path / name)
        assert sorted(found) == sorted(weights) and torch.equal(found["a.weight"], weights["a.weight"])


def test_a_pickle_of_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(1)}, "hook": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "bare.pkl").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pt", "bare.pkl"):
        with pytest.raises(ArtifactError, match=r"is refused|not a readable checkpoint"):
            load_checkpoint(tmp_path / name)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(ArtifactError, match=r"module\.pt holds Python code or objects"):
        load_checkpoint(tmp_path / "module.pt")
    assert not Path("/tmp/edgekd-code-ran").exists()


def test_broken_absent_empty_and_infinite_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not there"):
        load_checkpoint(tmp_path / "absent.pt")
    torch.save({"a": torch.ones(1000)}, tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    for length in (0, 10, len(whole) // 2):
        (tmp_path / "cut.pt").write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match=r"cut\.pt"):
            load_checkpoint(tmp_path / "cut.pt")
    for content in ({}, {"epoch": 3}, [torch.ones(1)]):
        torch.save(content, tmp_path / "no.pt")
        with pytest.raises(ArtifactError, match="holds no weights by name"):
            load_checkpoint(tmp_path / "no.pt")
    torch.save({"a": torch.tensor([1.0, float("nan")])}, tmp_path / "nan.pt")
    with pytest.raises(ArtifactError, match="a holds NaN or infinity"):
        load_checkpoint(tmp_path / "nan.pt")


@pytest.mark.shared
def test_the_published_resnet20_reads_and_sees(shared: Path) -> None:
    """60 test images of the JPEG copy, read as the recipe reads them: far above chance without any tuning."""
    import io
    import zipfile

    from PIL import Image

    path = shared / "data/teachers/resnet20-12fca82f.th"
    net = build("resnet20", 3, 10, 0)
    fill(net, load_checkpoint(path), path)
    with zipfile.ZipFile(shared / "data/cifar10_jpeg.zip") as archive:
        names = sorted(n for n in archive.namelist() if n.startswith("test/") and int(Path(n).stem) < 6)
        images = [np.asarray(Image.open(io.BytesIO(archive.read(n)))) for n in names]
    x = (np.stack(images).transpose(0, 3, 1, 2).astype(np.float32) - 128) / 64
    assert (predict(net, x).argmax(1) == np.repeat(np.arange(10), 6)).mean() > 0.6
