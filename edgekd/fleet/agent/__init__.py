"""edgekd-agent: the part of the fleet that lives on a Linux device.

It needs Python >= 3.11, the standard library and python-tuf, and is started by a timer or over SSH: nothing
of it stays in memory. What it promises: after a cut at any moment the device runs a whole old or a whole new
model; a model that fails its trial never serves; reverting needs no network.

machine.py     what is to be done: (state, event) -> (state, actions), no I/O
state.py       the state and its one file
disk.py        the operating system as the agent sees it: the real one here, a power-cutting one in the tests
durable.py     what must survive a cut, on top of that: whole files, links, trees
slots.py       a payload becomes a slot; slots are checked and removed
installer.py   performs the machine's actions
"""
