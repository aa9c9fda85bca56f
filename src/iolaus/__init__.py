"""Iolaus: a Hydra-composed launcher for image-classification experiments in PyTorch."""

__version__ = "0.1.0"
