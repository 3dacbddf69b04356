"""What [compress] may ask of pruning beyond a share: widths layer by layer, or what a device may spend."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.declaration import setting

LIMITED = ("instructions", "cycles", "ram_bytes", "flash_bytes")


@dataclass(frozen=True)
class LayerChannels:
    """How many output channels of one layer stay; layer: its place, "layers.3"; who is tied to it follows."""

    layer: str = setting()
    channels: int = setting(unit="channels", minimum=1, maximum=65_536)


@dataclass(frozen=True)
class DeviceLimits:
    """What a student may cost on the microcontroller `target`, predicted before anything is built.

    A figure up to 1 is a share of the distilled student's, a larger one the figure itself; 0: no limit.
    """

    target: str = setting()
    instructions: float = setting(0.0, minimum=0)
    cycles: float = setting(0.0, minimum=0)
    ram_bytes: float = setting(0.0, unit="bytes", minimum=0)
    flash_bytes: float = setting(0.0, unit="bytes", minimum=0)

    @property
    def asked(self) -> dict[str, float]:
        """Quantity -> limit of those that are set."""
        every = {name: float(getattr(self, name)) for name in LIMITED}
        return {name: limit for name, limit in every.items() if limit}
