"""The part of edgekd that runs on a Linux device: Python >= 3.11, the standard library, the model's runtime.

The host packs these files into one zip application (edgekd/device/archive.py) and sends it over standard
input, so the device needs nothing installed; a copy lies in each release to be run by hand:
`python3 agent.pyz bench --bundle DIR`. There the package is called `edgekd_agent`: it imports nothing of
edgekd and itself by relative names only. docs/formats/linux.md has every message and file.
"""
