"""Augmentation of whole batches on the device, by functions of the batch and of numbers drawn beforehand."""
