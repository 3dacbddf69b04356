"""Virtual Raspberry Pis: an arm64 Debian built from packages, run by QEMU, reached over SSH like any other.

`image` builds and caches the disk, `machine` runs one (`VirtualPi`) and has its power switch and cable.
"""
