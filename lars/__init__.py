"""LARS for PyTorch: layer-wise adaptive rate scaling around any optimizer (You, Gitman, Ginsburg 2017)."""

from lars.groups import split_parameters
from lars.lars import LARS, LarsSGD
from lars.migrate import load_torchlars

__version__ = "0.2.0.dev0"
__all__ = ["LARS", "LarsSGD", "load_torchlars", "split_parameters"]
