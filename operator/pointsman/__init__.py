"""Pointsman: a model change of a vector index, run as a release."""

__version__ = "0.1.0"
