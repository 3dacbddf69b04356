"""edgekd takes a trained PyTorch model to fleets of Raspberry Pis and microcontrollers.

The package imports nothing heavy here: every third-party library is imported where it is used.
"""

__version__ = "0.1.0"
