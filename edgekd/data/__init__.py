"""Data sets behind one frozen type, read from a directory that the stage `prepare` filled."""

from edgekd.data.dataset import Dataset, load_dataset, prepare
from edgekd.data.user import UserData, load_user_data

__all__ = ["Dataset", "UserData", "load_dataset", "load_user_data", "prepare"]
