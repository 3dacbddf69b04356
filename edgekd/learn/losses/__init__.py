"""What a student is trained to make small. Formulas, worked numbers, papers: docs/methods/distillation.md."""

from edgekd.learn.losses.logits import decoupled, dist, hard, kd, logit_mse, standardized
from edgekd.learn.losses.outputs import difference
from edgekd.learn.losses.weighted import Loss, student_loss, terms_of

__all__ = [
    "Loss",
    "decoupled",
    "difference",
    "dist",
    "hard",
    "kd",
    "logit_mse",
    "standardized",
    "student_loss",
    "terms_of",
]
