"""The processes that startup.py starts and reads one number from.

    python probes.py first_step STARTED SCRIPT ARGUMENTS
    python probes.py memory MODULES STEPS OVERRIDES

The first prints the seconds from STARTED, a time.time(), to the script's first training step, and ends there. The
second trains two epochs of STEPS steps and prints the peak of the resident memory in bytes; it lists what was imported
for it in the file MODULES. With 0 steps it only imports what that file lists, from an earlier run.
"""

import importlib
import os
import sys
import time
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any


class AtFirstStep(MetaPathFinder):
    """Puts `stop` in the place of iolaus.loop.train_step.

    It does so when the launcher imports the loop: importing it here would change the order of what is measured.
    """

    def __init__(self, stop: Any) -> None:
        self.stop = stop

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != "iolaus.loop":
            return None
        sys.meta_path.remove(self)
        spec: Any = find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_replace(module: Any) -> None:
            execute(module)
            module.train_step = self.stop

        spec.loader.exec_module = execute_and_replace
        return spec


def first_step(started: float, script: str, arguments: list[str]) -> None:
    """Run a script with these arguments; print the seconds from `started` to its first step, and exit."""
    import runpy

    def stop(*_: Any, **__: Any) -> None:
        print(time.time() - started, flush=True)
        os._exit(0)

    sys.meta_path.insert(0, AtFirstStep(stop))
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


def train(steps: int, overrides: list[str]) -> None:
    """Two epochs of the real loop, of `steps` steps each."""
    import tempfile

    import ours

    parts = ours.iolaus_parts(overrides)
    from iolaus.learner import LoopState

    state = LoopState()
    with tempfile.TemporaryDirectory() as folder:
        tracker = ours.open_tracker(parts.config, Path(folder))
        for _ in range(2):
            ours.train(parts, state, tracker, lambda taken: taken >= steps)
        tracker.close()


def memory(modules: Path, steps: int, overrides: list[str]) -> None:
    """Print the most bytes that were resident in training, or, with 0 steps, after the same imports."""
    import resource

    if steps:
        train(steps, overrides)
        # those with a spec were imported; others were made by other modules, as iolaus.machine.compile makes one
        imported = [name for name, module in sys.modules.items() if getattr(module, "__spec__", None)]
        modules.write_text("\n".join(name for name in imported if name != "__main__"))
    else:
        for name in modules.read_text().splitlines():
            importlib.import_module(name)
    # A new process begins with the peak of the one that started it: startup.py is small and imports no torch.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(most if sys.platform == "darwin" else most * 1024)


if __name__ == "__main__":
    if sys.argv[1] == "first_step":
        first_step(float(sys.argv[2]), sys.argv[3], sys.argv[4:])
    else:
        memory(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
