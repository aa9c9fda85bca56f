"""Give generated wrong commands, and count tracebacks and what is left behind: both must be 0; each ends with status 2.

python benchmarks/wrong_commands.py [--count 400] [--seed 0]
python benchmarks/wrong_commands.py --tree OLDER_TREE      # the same commands, given to another checkout

The commands are drawn from a seed: keys, types, ranges, options, paths, files and recipes that are wrong in one place.
They run in this process, each in a folder of its own; a command that is refused costs a few hundredths of a second.
"""

import argparse
import collections
import contextlib
import json
import random
import shlex
import statistics
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

GROUPS = {
    "dataset": ["digits", "synthetic"],
    "model": ["cnn", "mlp"],
    "optimizer": ["adamw", "sgd", "rmsprop", "muon"],
    "scheduler": ["one_cycle", "cosine", "step", "plateau"],
    "loss": ["cross_entropy"],
    "augmentation": ["basic", "heavy"],
    "early_stopping": ["patience"],
    "trainer": ["default"],
    "optimizer_groups": ["default"],
}
COUNTS = ("trainer.epochs", "trainer.batch_size", "trainer.eval_batch_size", "trainer.log_every", "dataset.image_size",
          "dataset.prefetch_factor", "model.image_size")  # fmt: skip
NUMBERS = ("optimizer.lr", "optimizer.weight_decay", "optimizer.eps", "trainer.grad_clip_norm", "trainer.ema_decay",
           "scheduler.warmup_epochs", "scheduler.pct_start", "scheduler.div_factor", "loss.label_smoothing",
           "augmentation.flip", "augmentation.erasing", "model.dropout", "dataset.crop_fraction",
           "trainer.sam_rho")  # fmt: skip
NOISE_KEYS = ("num_classes", "size", "channels", "train_count", "test_count")
WORDS = ("trainer.precision", "trainer.tta", "dataset.residency", "dataset.on_bad_image", "dataset.interpolation",
         "trainer.scale_lr_with_batch", "scheduler.interval", "scheduler.monitor", "augmentation.policy", "objective",
         "trainer.device", "scheduler.anneal_strategy")  # fmt: skip
TARGETS = (
    "torch.optim.Nothing",
    "os.system",
    "torch.load",
    "nowhere.Thing",
    "torch",
    "torch.nn",
    "iolaus.run.run",
    "5",
)
RUN = ".hydra/config.yaml"
MOST_LINES = 2  # that a command with one mistake may print


@dataclass
class Command:
    """A wrong command. files: made before it, by path within its folder; they are the user's own."""

    kind: str
    arguments: list[str]
    files: dict[str, str] = field(default_factory=dict)


def misspell(word: str, chance: random.Random) -> str:
    """The word with a letter doubled, dropped or exchanged with the next."""
    at = chance.randrange(len(word) - 1)
    how = chance.choice(("double", "drop", "swap"))
    if how == "double":
        return word[:at] + word[at] + word[at:]
    if how == "drop":
        return word[:at] + word[at + 1 :]
    swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return swapped if swapped != word else word + "x"


def listed_keys(group: str, option: str) -> list[str]:
    """The keys of an option's file."""
    lines = (ROOT / "conf" / group / f"{option}.yaml").read_text().splitlines()
    return [line.partition(":")[0] for line in lines if line[:1].isalpha() and not line.startswith("defaults")]


def draw(chance: random.Random) -> Iterator[Command]:
    """Wrong commands of every kind in turn, without end."""
    kinds: list[Callable[[random.Random], Command]] = [
        unknown_key, wrong_type, out_of_range, unknown_option, unknown_word, wrong_path, wrong_target, wrong_flag,
        wrong_grid, wrong_search, wrong_recipe, damaged_run, no_override,
    ]  # fmt: skip
    while True:
        for kind in kinds:
            yield kind(chance)


def unknown_key(chance: random.Random) -> Command:
    group = chance.choice([name for name in GROUPS if name != "augmentation"])
    option = chance.choice(GROUPS[group])
    known = listed_keys(group, option) or ["interval"]
    key = misspell(chance.choice(known), chance)
    key = key if key not in known else f"{key}_x"
    plus = chance.choice(("", "+"))
    wrong = chance.choice((f"{plus}{group}.{key}=1", f"{misspell(group, chance)}.{known[0]}=1", f"+{key}_s=3"))
    return Command("unknown key", [f"{group}={option}", wrong])


def wrong_type(chance: random.Random) -> Command:
    key = chance.choice((*COUNTS, *NUMBERS[:7]))
    value = chance.choice(("abc", "[1,2,a]", "{a:1}", "'1'", "1e", "true" if key in COUNTS else "[x]"))
    return Command("wrong type", [f"{key}={value}"])


def out_of_range(chance: random.Random) -> Command:
    if chance.random() < 0.3:
        key = f"dataset.{chance.choice(NOISE_KEYS)}"
        return Command("out of range", ["dataset=synthetic", f"{key}={chance.choice((0, -1, -7))}"])
    if chance.random() < 0.4:
        return Command("out of range", [f"{chance.choice(COUNTS)}={chance.choice((0, -1, -1000))}"])
    return Command("out of range", [f"{chance.choice(NUMBERS)}={chance.choice(('nan', 'inf', '-inf', '-0.5'))}"])


def unknown_option(chance: random.Random) -> Command:
    group = chance.choice([*GROUPS, "batch_size", "tracker", "experiment"])
    named = GROUPS.get(group, ["constant"])[0]
    value = chance.choice((misspell(named, chance) + "q", "5", "0.1", "null", "nothing", "[a,b]", "true"))
    return Command("unknown option", [f"{group}={'nothing' if group == 'experiment' and value == 'null' else value}"])


def unknown_word(chance: random.Random) -> Command:
    return Command("unknown word", [f"{chance.choice(WORDS)}={chance.choice(('best', 'Auto', '7', 'cuda:x', 'on'))}"])


def wrong_path(chance: random.Random) -> Command:
    key, more = chance.choice((
        ("dataset.root", ["dataset=image_folder"]), ("dataset.root", ["dataset=cifar10"]), ("model.weights", []),
        ("resume", []), ("hydra.run.dir", []), ("dataset.root", ["dataset=mnist"]),
    ))  # fmt: skip
    if key == "hydra.run.dir":
        return Command("wrong path", [f"{key}={chance.choice(('file/run', '/proc/nothing/run', ''))}"], {"file": "x"})
    return Command("wrong path", [*more, f"{key}={chance.choice(('nowhere', '/nowhere/at/all', 'file', 'empty'))}"],
                   {"file": "no weights", "empty/readme": "nothing"})  # fmt: skip


def wrong_target(chance: random.Random) -> Command:
    group = chance.choice(("dataset", "model", "optimizer", "scheduler", "loss", "trainer", "augmentation"))
    return Command("wrong target", [f"{group}._target_={chance.choice(TARGETS)}"])


def wrong_flag(chance: random.Random) -> Command:
    name = chance.choice(("lr", "epochs", "batch-size", "model", "seed", "workers", "gpu"))
    return Command("option of other programs", chance.choice(([f"--{name}", "3"], [f"--{name}=3"])))


def wrong_grid(chance: random.Random) -> Command:
    wrong = chance.choice((
        "seed=0,x", "optimizer.lr=0.1,nan", "trainer.batch_size=32,0", "model=cnn,nothing", "trainer.epochs=1,abc",
        "optimizer.lr=interval(0,1)", "seed=range(0)", "loss.label_smoothing=0,2", "optimizer.lrr=1,2",
        "hydra.sweeper.max_batch_size=0", "hydra/launcher=nothing", "dataset._target_=os.system,os.getcwd",
    ))  # fmt: skip
    return Command("grid", ["-m", f"seed={chance.randrange(3)},{chance.randrange(3, 6)}", wrong])


def wrong_search(chance: random.Random) -> Command:
    wrong = chance.choice((
        "model=choice(cnn,nothing)", "trainer.batch_size=choice(32,abc)", "scheduler.pct_start=interval(0.5,2)",
        "hydra.sweeper.n_trials=0", "hydra.sweeper.enqueue=5", "hydra.sweeper.n_trials=abc", "objective=[a,b]",
        "hydra/sweeper/pruner=nothing", "hydra/sweeper/sampler=nothing", "hydra.sweeper.direction=up",
        "hydra/sweeper/pruner=percentile hydra.sweeper.pruner.percentile=200", "hydra.sweeper.max_failure_rate=2",
        "optimizer.weight_decay=tag(log,interval(0,1))", "hydra.sweeper.storage=nothing://x",
    ))  # fmt: skip
    return Command("search", ["-m", "hydra/sweeper=optuna", "optimizer.lr=interval(0.01,0.1)", *wrong.split()])


def wrong_recipe(chance: random.Random) -> Command:
    good = ["# @package _global_", "trainer:", "  epochs: 1", "optimizer:", "  lr: 0.1"]
    slips = {
        "tab": [*good, "\tseed: 1"], "quote": [*good, "study: 'a"], "bracket": [*good, "objective: [a"],
        "list": ["- a", "- b"], "text": ["just words"], "key twice": [*good, "optimizer:", "  lr: 3"],
        "colon": [*good, "a: b: c"], "indent": [*good, " x: 1"], "unknown key": [*good, "optimiser:", "  lr: 1"],
        "unknown value": [*good, "objective: best"], "defaults": ["# @package _global_", "defaults: 3"],
        "unknown option": ["# @package _global_", "defaults:", "  - override /model: nothing"],
        "reference": [*good, "study: ${no.such}"], "half a reference": [*good, "study: ${no"], "bytes": [*good, "\x00"],
        "wrong type": [*good, "seed: one"], "no such class": [*good, "model:", "  _target_: torch.nn.Nothing"],
    }  # fmt: skip
    text = "\n".join(slips[chance.choice([*slips])]) + "\n"
    return Command("recipe", ["--config-dir", "mine", "experiment=bad"], {"mine/experiment/bad.yaml": text})


def damaged_run(chance: random.Random) -> Command:
    config = chance.choice(("", "- 1\n", "a: [", "seed: 0\n", "model: 3\n", "\x00", "dataset: {_target_: os.system}\n"))
    results = chance.choice(({}, {"results.json": "[1]"}, {"results.json": "{"}, {"results.json": '{"status": 3}'}))
    return Command("damaged run", [f"resume={chance.choice(('outputs/run', 'outputs/run/'))}"],
                   {f"outputs/run/{RUN}": config, "outputs/run/last.pt": "no checkpoint", **results})  # fmt: skip


def no_override(chance: random.Random) -> Command:
    wrong = ("optimizer.lr", "=3", "'optimizer.lr=1", "optimizer.lr=[1", "~nothing", "optimizer..lr=1", "a b=c d(",
             "+optimizer.lr=1", "~optimizer.nothing", "optimizer.lr=${no.such}", "study=${oc.env:NO_SUCH}",
             "hydra.nothing=1", "--config-name=nothing", "--config-dir=nowhere", "resume=last", "tracker.wandb=3",
             "tracker.tensorboard=null", "optimizer=null", "~model", "trainer=3", "trainer={epochs: x}")  # fmt: skip
    return Command("no override", [chance.choice(wrong)])


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def find_door(tree: Path) -> Callable[[], object]:
    """What `python train.py` calls in a tree, with the errors for the user at its end."""
    sys.path[:0] = [str(tree), str(tree / "src")]
    import train

    try:
        from iolaus.config.explain import exit_on_user_errors as door
    except ImportError:  # of before the room config/
        from iolaus.errors import errors_for_people as door  # type: ignore[attr-defined, no-redef]

    def main() -> None:
        with door():
            train.main()

    return main


def give(command: Command, main: Callable[[], object] | None = None) -> tuple[int, str, str, set[str]]:
    """Give a command in a new folder. Returns its exit status (-1: a traceback), what it printed, and what it left."""
    from captured import call_captured

    main = main or find_door(ROOT)
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        folder = Path(name)
        for path, text in command.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        short = ("trainer.monitor_every=0", "trainer.epochs=1")  # where it is not refused
        before, sys.argv = contents(folder), ["train.py", *short, *command.arguments]
        try:
            status, out, err = call_captured(main)
        except Exception:
            status, out, err = -1, "", traceback.format_exc()
        return status, out, err, contents(folder) - before - {"outputs/run/.lock"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=416)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout whose train.py is called")
    options = parser.parse_args()
    import torch

    main = find_door(options.tree.resolve())

    torch.set_num_threads(1)
    rows, lines = collections.defaultdict[str, collections.Counter[str]](collections.Counter), dict[str, list[int]]()
    commands = draw(random.Random(options.seed))
    for _ in range(options.count):
        command = next(commands)
        status, out, err, left = give(command, main)
        printed = [line for line in (out + err).splitlines() if line.strip()]
        found = {"tried": 1, "tracebacks": status == -1 or "Traceback (most" in out + err, "left behind": bool(left)}
        found |= {"status 2": status == 2, "many lines": len(printed) > MOST_LINES}
        found |= {"wrong": found["tracebacks"] or found["left behind"] or status != 2 or found["many lines"]}
        for row in (command.kind, "all"):
            rows[row].update({name: int(value) for name, value in found.items()})
            lines.setdefault(row, []).append(len(printed))
        if found["tracebacks"] or left or status != 2:
            print(f"{command.kind}: {shlex.join(command.arguments)} {json.dumps(command.files)}: status {status}, left "
                  f"{sorted(left)[:3]}: {printed[-1:]}", file=sys.stderr, flush=True)  # fmt: skip
    columns = ("tried", "tracebacks", "left behind", "status 2", "many lines", "wrong")
    print("| what is wrong | " + " | ".join(columns) + " | lines, median | lines, most |")
    print("|---|" + "--:|" * (len(columns) + 2))
    for row in [*(row for row in rows if row != "all"), "all"]:
        counts = " | ".join(str(rows[row][name]) for name in columns)
        print(f"| {row} | {counts} | {statistics.median(lines[row]):g} | {max(lines[row])} |")
    everything = rows["all"]
    return int(everything["tracebacks"] + everything["left behind"] + everything["tried"] - everything["status 2"] > 0)


if __name__ == "__main__":
    sys.exit(main())
