"""The comparison of losses: what it trains, what it says, and what it refuses to say."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch

from edgekd.learn.ablation import distillation_report, equal_step, summary, variant
from edgekd.learn.losses import Loss, student_loss
from edgekd.recipe import AblationParams, DistillParams, LossTerm
from edgekd.report.learning import show_ablation
from tests.learn.chain import Chain

QUICK = AblationParams(losses=("kd", "dist"), seeds=2)


def test_the_report_says_what_it_compared(chain: Chain, tmp_path: Path) -> None:
    distill = dataclasses.replace(chain.recipe.distill, epochs=1)
    recipe = dataclasses.replace(chain.recipe, distill=distill, ablation=QUICK)
    told: list[tuple[str, int, int]] = []
    report = distillation_report(
        chain.data, chain.knowledge, recipe, tmp_path, progress=lambda *row: told.append(row)
    )
    assert json.loads((tmp_path / "ablation.json").read_text()) == report
    assert report["split"] == "test" and report["seeds"] == 2 and report["comparisons"] == 2
    assert [row["loss"] for row in report["rows"]] == ["hard", "kd", "dist"]
    assert all(len(row["values"]) == 2 and 0 < row["mean"] < 1 for row in report["rows"])
    assert told == [("ablation", i, 6) for i in range(1, 7)]


def test_each_loss_trains_from_the_same_weights_in_the_same_order(chain: Chain, tmp_path: Path) -> None:
    """Two names for one loss give the very same accuracies: nothing but the loss differs."""
    distill = DistillParams(loss="hard", epochs=2)
    recipe = dataclasses.replace(
        chain.recipe, distill=distill, ablation=AblationParams(losses=("recipe",), seeds=2)
    )
    labels, own = distillation_report(chain.data, chain.knowledge, recipe, tmp_path)["rows"]
    assert labels["values"] == own["values"] and labels["spread"] > 0
    assert own["verdict"] == "not told apart"


@pytest.mark.parametrize("loss", [LossTerm("kd", 7.0), LossTerm("dkd"), LossTerm("logit-mse", 0.01)])
def test_with_sgd_every_loss_begins_with_a_step_of_the_same_length(loss: LossTerm) -> None:
    torch.manual_seed(3)
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 4))
    inputs, teacher, labels = torch.randn(32, 6), 3 * torch.randn(32, 4), torch.arange(32) % 4

    def length(of: Loss) -> float:
        gradients = torch.autograd.grad(of(net(inputs), (teacher, labels)), list(net.parameters()))
        return sum(float(g.square().sum()) for g in gradients) ** 0.5

    seen = net[1].running_mean.clone()
    scaled = equal_step(student_loss(DistillParams(loss=(loss,))), net, inputs, (teacher, labels))
    assert torch.equal(net[1].running_mean, seen)  # the measurement left nothing behind
    assert length(scaled) == pytest.approx(length(student_loss(DistillParams(loss="hard"))), rel=1e-4)


def test_an_ablation_with_sgd(chain: Chain, tmp_path: Path) -> None:
    distill = dataclasses.replace(chain.recipe.distill, epochs=1, optimizer="sgd", learning_rate=0.05)
    recipe = dataclasses.replace(chain.recipe, distill=distill, ablation=QUICK)
    rows = distillation_report(chain.data, chain.knowledge, recipe, tmp_path)["rows"]
    assert all(0 < row["mean"] < 1 for row in rows)


def test_a_standardized_loss_carries_its_papers_weight() -> None:
    params = DistillParams(hard_share=0.1, temperature=2.0)
    hard, soft = variant(params, "kd-std").terms
    assert hard == LossTerm("hard", 0.1)
    assert soft == LossTerm("kd", pytest.approx(8.1), 2.0, standardize=True)
    assert variant(params, "recipe") == params and variant(params, "dkd").loss == "dkd"


@pytest.mark.parametrize(
    ("taught", "untaught", "verdict", "sentence"),
    [
        (
            [0.98, 0.99, 0.985],
            [0.90, 0.91, 0.905],
            "better",
            r"better than labels only: kd \(\+8\.00 ± 0\.00",
        ),
        ([0.90, 0.91, 0.905], [0.98, 0.99, 0.985], "worse", r"worse than labels only: kd \(-8\.00"),
        ([0.98, 0.97, 0.985], [0.975, 0.985, 0.97], "not told apart", "no claim is made"),
        ([0.98, 0.98], [0.98, 0.98], "not told apart", "no loss is told apart from labels only by 2 seeds"),
        ([0.99], [0.5], "not told apart", "by 1 seeds"),
    ],
)
def test_the_verdict_is_honest(
    taught: list[float], untaught: list[float], verdict: str, sentence: str
) -> None:
    report = summary({"hard": untaught, "kd": taught})
    assert report["rows"][1]["verdict"] == verdict
    assert re.search(sentence, report["verdict"])


def test_more_comparisons_ask_for_more_evidence() -> None:
    """+2.0 ± 0.5 points over three seeds: enough for one comparison, not for one of six."""
    hard, kd = [0.90, 0.90, 0.90], [0.915, 0.92, 0.925]
    assert summary({"hard": hard, "kd": kd})["rows"][1]["verdict"] == "better"
    six = summary({"hard": hard, "kd": kd} | {f"other{i}": hard for i in range(5)})
    assert six["rows"][1]["verdict"] == "not told apart" and six["comparisons"] == 6


def test_the_table_holds_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    show_ablation(summary({"hard": [0.90, 0.91, 0.905], "kd": [0.98, 0.99, 0.985], "dkd": [0.9, 0.92, 0.9]}))
    shown = capsys.readouterr().out
    for word in ("labels only", "0.9050", "+8.00", "better", "not told apart", "3 seeds", "one teacher"):
        assert word in shown, word


def test_one_seed_has_no_interval_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    report = summary({"hard": [0.9], "kd": [0.99]})
    assert report["rows"][1]["difference"] == {"mean": pytest.approx(0.09), "low": None, "high": None}
    show_ablation(report)
    assert "not told apart" in capsys.readouterr().out
