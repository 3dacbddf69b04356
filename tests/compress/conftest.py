"""The small trained chain as a fixture."""

from tests.learn.chain import chain

__all__ = ["chain"]
