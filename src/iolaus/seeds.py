"""All randomness is a function of `(seed, epoch)` or `(seed, step)`: there is no state to save or restore."""

import random

import numpy as np
import torch

# the streams: data order and augmentation, dropout and the like, initial weights, the user's function, mixing,
# flips that alternate
ORDER, STEP, WEIGHTS, SAMPLE, MIX, FLIP = range(6)
_64_BITS = 2**64 - 1


def seed_of(seed: int, count: int, stream: int) -> int:
    """A well-mixed 63-bit seed from the run's seed, an epoch or step count, and a stream.

    It chains SplitMix64's finalizer over the three (Steele, Lea, Flood 2014), in about 1 µs, fast enough for each step.
    """
    mixed = 0
    for number in (seed, count, stream):
        mixed = ((mixed ^ number) + 0x9E3779B97F4A7C15) & _64_BITS
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _64_BITS
        mixed ^= mixed >> 31
    return mixed >> 1


def seed_device(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of `device`, 100 times as fast as torch.manual_seed."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.init()  # the generators are there after it, and at once the next time
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def seed_sample(seed: int, device: torch.device) -> None:
    """Seed every global generator that the user's function may draw from: torch's, numpy's and Python's."""
    seed_device(seed, device)
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
