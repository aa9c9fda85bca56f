"""Augmentation of whole batches, on the device, as functions of numbers drawn beforehand."""
