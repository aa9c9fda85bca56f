"""Multiruns: every combination, or a search; everything that knows Hydra's sweepers and launchers."""
