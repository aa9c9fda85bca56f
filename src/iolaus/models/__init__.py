"""Models: one file for each architecture of our own, and timm.py for those of the timm library.

Nothing is imported here, so that a run imports only the library that its model needs.
"""
