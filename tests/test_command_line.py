"""What the command prints, as a user sees it: the texts are in tests/snapshots, so a change of one shows in review."""

import re

from conftest import TINY

MISTAKES = (
    "model=resnet19", "optimiser=sgd", "trainer.epoch=3", "trainer.epochs=0", "optimizer.lr=fast trainer.epochs=many",
    "optimizer=sgd optimizer.momentun=0.9", "trainer.precision=fp8", "dataset=image_folder",
    "dataset=image_folder dataset.root=my_images", "resume=last",
)  # fmt: skip


def test_the_default_config_is_the_one_in_the_snapshot(command, check_snapshot, monkeypatch):
    monkeypatch.delenv("IOLAUS_DATA", raising=False)
    outcome = command("--cfg", "job")
    assert (outcome.status, outcome.err) == (0, "")
    check_snapshot("config", outcome.out)


def test_ten_frequent_mistakes_are_answered_as_in_the_snapshot(command, check_snapshot):
    answers = []
    for mistake in MISTAKES:
        outcome = command(*mistake.split())
        assert (outcome.status, outcome.out) == (2, ""), mistake
        answers.append(f"$ python train.py {mistake}\n{outcome.err}".replace(str(outcome.cwd), "/home/me"))
    check_snapshot("mistakes", "\n".join(answers))


def test_the_closing_table_of_a_run_is_laid_out_as_in_the_snapshot(command, check_snapshot):
    outcome = command(*TINY, "trainer.epochs=2", "trainer.device=cpu", "trainer.precision=fp32",
                      "hydra.run.dir=outputs/run")  # fmt: skip
    assert outcome.status == 0, outcome.err
    *table, speed, folder = outcome.out.splitlines()
    table = [re.sub(r" *\d+(\.\d+)( %)?", blank_number, line).replace("epoch 2", "epoch 1") for line in table]
    speed = re.sub(r"^[\d.]+ s   [\d,]+ images/s", "TIME s   SPEED images/s", speed)
    check_snapshot("run", "\n".join([*table, speed, folder]))


def blank_number(found):
    """A number in a column of numbers, with zeros in its place: another machine may end with another one."""
    return ("0" + re.sub(r"\d", "0", found[1]) + (found[2] or "")).rjust(len(found[0]))
