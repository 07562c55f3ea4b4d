"""LARS for PyTorch: layer-wise adaptive rate scaling around any optimizer (You, Gitman, Ginsburg 2017)."""

from lars.lars import LARS

__all__ = ["LARS"]
