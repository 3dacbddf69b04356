"""The kernel family for Armv7E-M's DSP instructions (Cortex-M4, M7): generated assembly and its weights.

Each kernel is a leaf in assembly, called by a C driver of firmware_stubs/kernels (k_dsp_*.c); on every
other core, and on the host, a C twin with the same contract takes its place and gives the same bytes.
docs/kernels.md explains the arithmetic.
"""
