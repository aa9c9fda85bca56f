"""Models: one file per architecture of our own, and timm.py for those of the timm library.

Nothing is imported here, so that a run pays only for the library that its model needs.
"""
