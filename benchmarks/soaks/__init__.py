"""The soaks that benchmarks/soak.py runs: one module each.

agreement.py   the four MLPerf Tiny models through every execution, core included
graphs.py      random graphs: TFLite Micro = integer reference = generated C, byte for byte
mutations.py   damaged .tflite files: refused with a named error, or computed as TFLite Micro does
fleet_cuts.py  power cuts under a device's own code that installs and reverts a model
damage.py      how a file is damaged
worker.py      the processes in which damaged files are read and the oracle runs
places.py      where things lie
"""
