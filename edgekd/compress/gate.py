"""The gate between the methods of one list: what failed behind the second is not tuned by the third.

The gate behind the whole stage is the pipeline's; this one asks the same question of the student in between,
with the same split, metric and budget, against the student as it was distilled.
"""

from __future__ import annotations

from typing import Any

from edgekd.data import Dataset
from edgekd.errors import BudgetError
from edgekd.evaluate import evaluation
from edgekd.evaluate.gate import FAILED, UNDECIDED, Budget, Verdict, judge
from edgekd.evaluate.metrics import top1
from edgekd.evaluate.roc import anomaly_scores
from edgekd.learn.student import StudentNet
from edgekd.learn.torch_tools import predict
from edgekd.recipe import GateParams

# Method -> what of its own would lose less.
REMEDIES = {
    "lowrank": "more compress.energy or compress.rank_share",
    "prune": "more compress.keep",
    "sparsify": "less compress.sparsity",
    "share": "more compress.entries or smaller compress.group_channels",
}


class Gate:
    """Judges students against `net` on the recipe's split."""

    def __init__(self, net: StudentNet, data: Dataset, params: GateParams) -> None:
        self._data, self._params = data, params
        self._before, _ = self._answers(net)

    def judge(self, net: StudentNet) -> Verdict:
        """The verdict on a student."""
        answers, figures = self._answers(net)
        figures["drop"] = evaluation.drop_between(self._before, answers, "distill")
        record = evaluation.new_evaluation(split=self._params.split, samples=len(answers.y), **figures)
        budget = Budget(self._params.max_accuracy_drop, self._params.min_accuracy)
        return judge(evaluation.headline(record), budget)

    def check(self, net: StudentNet, method: str, methods: tuple[str, ...]) -> None:
        """Raise BudgetError where the gate says no behind `method`."""
        verdict = self.judge(net)
        stops = (FAILED, UNDECIDED) if self._params.undecided == "fail" else (FAILED,)
        if verdict.outcome in stops:
            said = "failed the gate" if verdict.outcome == FAILED else "is undecided at the gate"
            raise BudgetError(
                f"compress {said} behind {method} ({methods.index(method) + 1} of {len(methods)} methods): "
                f"{verdict.reason}; the distilled student stays the last good artifact; try "
                f"{REMEDIES[method]}, more compress.epochs, or a higher gate.max_accuracy_drop"
            )

    def _answers(self, net: StudentNet) -> tuple[evaluation.Answers, dict[str, Any]]:
        x, y = self._data.part(self._params.split)
        outputs = predict(net, x)
        if self._params.metric == "auc":
            score = anomaly_scores(x, outputs)
            return evaluation.Answers(y, score=score), evaluation.of_scores(y, score)
        figures = evaluation.of_classes(y, outputs, self._data.classes, probabilities=False)
        return evaluation.Answers(y, top1=top1(outputs)), figures
