"""A process that another one has started ends when that one has ended, however it did.

It imports nothing of ours: joblib's workers look at their parent before they import what a run needs.
"""

import os
import signal
import threading
import time
from collections.abc import Callable

LOOK_AT_PARENT_SECONDS = 0.2
at_work = threading.Event()  # set while this process trains a run, which it brings to its end


def end_with(parent: int, is_busy: Callable[[], bool] = lambda: False) -> None:
    """End this process when its parent has ended and it is not busy."""
    while os.getppid() == parent or is_busy():
        time.sleep(LOOK_AT_PARENT_SECONDS)
    os._exit(1)


def watch_parent(parent: int) -> None:
    """Let a thread end this process with its parent, but for a run that is at work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, too, which ends the runs by SIGTERM
    threading.Thread(target=end_with, args=(parent, at_work.is_set), daemon=True).start()
