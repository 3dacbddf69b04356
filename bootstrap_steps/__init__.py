"""The steps of bootstrap.py, each a module: standard library only, no part of the package edgekd."""
