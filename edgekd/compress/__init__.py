"""Ways to a smaller student; each gives a student again, fine-tuned from knowledge."""

from edgekd.compress.stage import compress_student

__all__ = ["compress_student"]
