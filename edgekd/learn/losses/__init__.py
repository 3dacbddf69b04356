"""What a student is trained to make small. Formulas, worked numbers, papers: docs/methods/distillation.md."""

from edgekd.learn.losses.logits import decoupled, dist, hard, kd, logit_mse, standardized
from edgekd.learn.losses.maps import attention, fitnet
from edgekd.learn.losses.outputs import difference
from edgekd.learn.losses.weighted import Loss, student_loss

__all__ = [
    "Loss",
    "attention",
    "decoupled",
    "difference",
    "dist",
    "fitnet",
    "hard",
    "kd",
    "logit_mse",
    "standardized",
    "student_loss",
]
