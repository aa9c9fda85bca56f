"""How the threads of a computation wait for each other: asleep, on a machine that others use too."""

import os

SPIN = "GOMP_SPINCOUNT"  # libgomp's own variable, which it reads when torch is first imported
SPINS = 1000  # looks at a barrier before a thread sleeps: microseconds; libgomp's default is 300,000


def spin_briefly() -> None:
    """Let OpenMP's threads sleep where they wait for long, unless the environment says how they wait.

    By default a thread looks for milliseconds at a barrier that another, without a core, has not reached: so it takes
    the core away from the one that it waits for (GCC's manual of libgomp, GOMP_SPINCOUNT). No number depends on it.
    Before the first import of torch; processes that this one starts inherit it.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(SPIN, str(SPINS))
