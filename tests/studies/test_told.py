"""What strikes several runs of a sweep is told once, by the process that knows of all of them."""

import pickle
import threading

from iolaus.errors import ConfigError
from iolaus.studies.told import Told


def test_a_mistake_that_strikes_every_run_of_a_grid_is_told_once(command):
    outcome = command("-m", "seed=0,1", "dataset=image_folder", "dataset.root=nowhere", "tracker=none")
    assert outcome.status == 2
    assert outcome.err.count("no such folder") == 1
    assert "2 of 2 runs failed" in outcome.out
    assert list(outcome.cwd.iterdir()) == []


def test_threads_that_meet_the_same_mistake_tell_it_once(capsys):
    told, errors = Told.instance(), [ConfigError("a: wrong", f"b: wrong in {i % 2}") for i in range(8)]
    told.begin()
    threads = [threading.Thread(target=told.tell, args=(error,)) for error in errors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told.begin()
    lines = capsys.readouterr().err.splitlines()
    assert sorted(lines) == ["iolaus: a: wrong", "iolaus: b: wrong in 0", "iolaus: b: wrong in 1"]
    assert all(error.told for error in errors)


def test_a_worker_leaves_the_telling_to_its_sweeper():
    Told.instance().begin(by_sweeper=True)
    assert pickle.loads(pickle.dumps(Told.instance())).by_sweeper
    Told.instance().begin()
