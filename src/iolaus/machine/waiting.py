"""How the threads of a computation wait for each other: asleep, on a machine that others use too."""

import os

SPIN = "GOMP_SPINCOUNT"  # libgomp's own variable, which it reads when torch is first imported
# Looks at a barrier before a thread sleeps; libgomp's default is 300,000. Fewer help more beside other work, but 1,000
# cost an MLP a tenth of its speed on a quiet machine (benchmarks/README.md).
SPINS = 10_000


def spin_briefly() -> None:
    """Let OpenMP's threads sleep where they wait for long, unless the environment says how they wait.

    By default a thread looks for milliseconds at a barrier that another, without a core, has not reached: so it takes
    the core away from the one that it waits for (GCC's manual of libgomp, GOMP_SPINCOUNT). No number depends on it.
    Before the first import of torch; processes that this one starts inherit it.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(SPIN, str(SPINS))
