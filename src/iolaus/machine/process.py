"""What a process of Iolaus sets before it imports torch: how its threads wait, and when it looks for garbage."""

import gc
import os

SPIN = "GOMP_SPINCOUNT"  # libgomp's own variable, which it reads when torch is first imported
# Looks at a barrier before a thread sleeps; libgomp's default is 300,000. Fewer help more beside other work, but 1,000
# cost an MLP a tenth of its speed on a quiet machine (benchmarks/README.md).
SPINS = 10_000
RARELY = 100_000  # new objects between two looks for garbage; Python's default is 700, later 2,000
_usual: tuple[int, int, int] | None = None  # the thresholds to go back to, where this process looks rarely


def spin_briefly() -> None:
    """Let OpenMP's threads sleep where they wait for long, unless the environment says how they wait.

    By default a thread looks for milliseconds at a barrier that another, without a core, has not reached: so it takes
    the core away from the one that it waits for (GCC's manual of libgomp, GOMP_SPINCOUNT). No number depends on it.
    Before the first import of torch; processes that this one starts inherit it.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(SPIN, str(SPINS))


def collect_rarely() -> None:
    """Let Python look for garbage rarely, until `collect_as_usual`: importing libraries makes objects that all stay.

    The looks at those take a sixth of a short run's time.
    """
    global _usual
    if _usual is None:
        _usual = gc.get_threshold()
        gc.set_threshold(RARELY, *_usual[1:])


def collect_as_usual() -> None:
    """Let Python look for garbage as always, among what is made from now on; nothing where it did not look rarely."""
    global _usual
    if _usual is not None:
        if not gc.get_freeze_count():  # what was made between runs is not there to stay
            gc.freeze()
        gc.set_threshold(*_usual)
        _usual = None
