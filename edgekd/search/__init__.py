"""Structure search: students that fit a device, trained a little, compared by accuracy and by cost.

space.py   what a recipe's [search] allows, and the student that a point of it is
fit.py     what a student costs, and how far it is from the limits
front.py   which trials no other beats, and the volume that they dominate
trial.py   one trial: a student trained from the stored knowledge, stopped early where it is beaten
study.py   the trials' storage, sampler, and counts
worker.py  one process that runs trials until there are enough
"""
