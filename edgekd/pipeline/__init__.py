"""The graph of stages: the only place that knows the order in which artifacts are made.

request.py   what a run is asked for, what a stage is
learning.py  the stages from a data set to an int8 model
shipping.py  the stages from an int8 model to an image or a bundle
benching.py  the bench on an emulated core (emulated.py does it)
samples.py   what a model is calibrated with and judged on
stages.py    STAGES, the table of all of them
graph.py     making an artifact with all it depends on; looking without making; provenance
checking.py  looking at a model without making anything
effects.py   what happens on real devices: appended as records, never cached
"""
