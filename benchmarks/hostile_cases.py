"""Configurations of a stranger's that try to run code or to write files, at every place where a configuration comes in.

tests/test_hostile.py gives each of them within one process, benchmarks/hostile.py as a command of its own.
"""

import functools
import os
import pickle
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# One step on 16 images of noise: the least that is a run. Later arguments win over these.
TINY = (
    "dataset=synthetic", "dataset.num_classes=2", "dataset.size=8", "dataset.train_count=20", "dataset.test_count=6",
    "trainer.epochs=1", "trainer.batch_size=16", "dataset.validation=0.2", "tracker=none",
)  # fmt: skip


# What the line says that refuses a configuration by the policy, and not for a slip in the case itself.
REFUSAL = re.compile(
    r"not among|no part of a run|a configuration may name|only as tracker|has .* use files|must be the dotted path"
    r"|a callback that|no (launcher|sweeper) that|can run or write|leaves outputs/|must be a folder within"
    r"|has no effect from a configuration|may only name sqlite|logging\.|a link that leads out|may not import"
    r"|oc\.coerce|allowed: _|expected an object"
)


# The same of the digits, whose node has no arguments that a target in its place would not take.
DIGITS = ("dataset=digits", "trainer.epochs=1", "model.widths=[4]", "tracker=none")


@dataclass(frozen=True)
class Case:
    """entry: where the configuration comes in. files: text by name, in the command's folder. report: whether the
    command is `python -m iolaus.report` instead of `python train.py`. prepare: more that is made in the folder.

    In arguments and files {evil} is a pickle that runs code, {outside} a folder with a file `victim` that nothing may
    change.
    """

    entry: str
    name: str
    arguments: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    report: bool = False
    prepare: Callable[[Path, Path], None] = lambda work, outside: None

    def __str__(self) -> str:
        return f"{self.entry}: {self.name}"


class Payload:
    """An object whose unpickling makes the file `executed`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.marker}'",)


def make_stage(case: Case, folder: Path) -> tuple[Path, Path, list[str]]:
    """Make what a case needs. Returns (the command's folder, the folder that nothing may change, the arguments)."""
    work, outside, marker = folder / "work", folder / "outside", folder / "executed"
    for made in (work, outside):
        made.mkdir(parents=True)
    (outside / "victim").write_text("keep\n")
    (folder / "evil.pt").write_bytes(pickle.dumps(Payload(marker)))
    (work / "evil_module.py").write_text(f"open({str(marker)!r}, 'w')\ndef run(*_, **__): ...\nclass Net: ...\n")

    for name, text in case.files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(fill(text, folder))
    case.prepare(work, outside)
    return work, outside, [fill(argument, folder) for argument in case.arguments]


def fill(text: str, folder: Path) -> str:
    """Put the paths of a stage in the place of their names."""
    for name, file in {"{evil}": "evil.pt", "{outside}": "outside", "{marker}": "executed"}.items():
        text = text.replace(name, str(folder / file))
    return text


@functools.cache
def saved_config() -> str:
    """The configuration of a tiny run, as a run folder holds it."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(ROOT / "conf")):
        return OmegaConf.to_yaml(compose("config", overrides=list(TINY)))


def in_run(key: str, node: str) -> Callable[[Path, Path], None]:
    """Make a run folder of a stranger's whose saved configuration holds this node."""

    def prepare(work: Path, outside: Path) -> None:
        import yaml
        from omegaconf import OmegaConf

        saved = OmegaConf.create(saved_config())
        OmegaConf.update(saved, key, yaml.safe_load(fill(node, work.parent)), merge=False, force_add=True)
        (work / "run" / ".hydra").mkdir(parents=True)
        OmegaConf.save(saved, work / "run" / ".hydra" / "config.yaml")

    return prepare


def linked(folder: str, name: str, config: bool = True) -> Callable[[Path, Path], None]:
    """Make a folder in which a file is a link to the victim."""

    def prepare(work: Path, outside: Path) -> None:
        (work / folder / ".hydra").mkdir(parents=True)
        if config:
            (work / folder / ".hydra" / "config.yaml").write_text(saved_config())
        (work / folder / name).parent.mkdir(parents=True, exist_ok=True)
        (work / folder / name).symlink_to(outside / "victim")

    return prepare


def with_database(work: Path, outside: Path) -> None:
    """Another program's SQLite file, with no table of Optuna's."""
    with sqlite3.connect(outside / "cookies.db") as database:
        database.execute("create table cookies (name text)")
    database.close()


LOAD = "{_target_: torch.load, f: {evil}, weights_only: false}"
STATE_DICT = "{_target_: timm.models.load_state_dict, checkpoint_path: {evil}, weights_only: false}"
EMPTY_FILE = "{_target_: iolaus.show.trackers.JSONL, path: {outside}/victim}"
RECORD = "{_target_: iolaus.files.locks.record_host, path: {outside}/victim}"
WRITE = "{_target_: torchvision.io.write_file, filename: {outside}/victim, data: [1]}"
SYSTEM = "{_target_: os.system, command: touch {marker}}"
OVERLAY = "{_target_: timm.models.resnet18, pretrained: true, pretrained_cfg_overlay: {file: {evil}}}"
SUMMARY = (
    "{_target_: timm.utils.update_summary, epoch: 0, train_metrics: {}, eval_metrics: {}, filename: {outside}/victim}"
)
BOARD = "{_target_: iolaus.show.trackers.TensorBoard, folder: {outside}, config: {}}"
PLUGIN = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"
NODES = {
    "torch.load": LOAD, "timm's load_state_dict": STATE_DICT, "the JSONL tracker": EMPTY_FILE,
    "the lock's host": RECORD, "torchvision's write_file": WRITE, "os.system": SYSTEM,
    "weights of its own choice": OVERLAY, "timm's summary": SUMMARY, "event files elsewhere": BOARD,
    "eval": "{_target_: builtins.eval, _args_: [\"open('{marker}','w')\"]}",
    "torch.load by another path": LOAD.replace("torch.load", "torch.nn.modules.linear.torch.load"),
    "timm's _torch_load": STATE_DICT.replace("load_state_dict", "_helpers._torch_load"),
    "timm's hub": "{_target_: timm.models._hub.load_state_dict_from_path, path: {evil}, weights_only: false}",
    "torch.hub": "{_target_: torch.hub.load, repo_or_dir: ., model: run, source: local}",
    "a checkpoint": "{_target_: iolaus.files.checkpoint.save, path: {outside}/victim, content: {}}",
    "journal repair": "{_target_: iolaus.files.optuna_storage.drop_torn_line, journal: {outside}/victim, longest: 1}",
    "an archive": "{_target_: torchvision.datasets.utils.extract_archive, from_path: {evil}, to_path: {outside}}",
    "a download": "{_target_: torchvision.datasets.utils.download_url, url: 'file://{evil}', root: {outside}}",
    "a JPEG": "{_target_: torchvision.io.write_jpeg, input: [1], filename: {outside}/victim}",
    "an import": "{_target_: importlib.import_module, name: evil_module}",
    "a module of the folder": "{_target_: evil_module.Net}",
    "hydra.utils": "{_target_: hydra.utils.get_method, path: os.system}",
    "functools.partial": "{_target_: functools.partial, _args_: [{_target_: os.system}]}",
    "subprocess": "{_target_: subprocess.run, args: [touch, '{marker}']}",
    "a path that is no path": "{_target_: 'torch.nn:Linear'}",
}  # fmt: skip


def cases() -> list[Case]:
    """All of them."""
    found = []
    at: Any = lambda entry, name, *arguments, **more: found.append(Case(entry, name, (*TINY, *arguments), **more))  # noqa: E731
    recipe = lambda text: {"more/experiment/evil.yaml": f"# @package _global_\n{text}\n"}  # noqa: E731
    use_recipe = ("--config-dir", "more", "experiment=evil")

    for name, node in NODES.items():
        if name != "a module of the folder":  # on the command line it is the user's word
            found.append(Case("command line", f"{name} as dataset", (*DIGITS, *to_overrides("dataset", node))))
        found.append(Case("recipe", f"{name} as dataset", (*DIGITS, *use_recipe), recipe(f"dataset: {node}")))
    for name in ("torch.load", "timm's load_state_dict", "the JSONL tracker", "os.system", "event files elsewhere"):
        node = NODES[name]
        nested = f"{{_target_: torch.nn.Sequential, _args_: [{{_target_: torch.nn.Flatten}}, {node}]}}"
        at("nested", f"{name} in a list", *use_recipe, files=recipe(f"dataset: {{initial: {nested}}}"))
        deep = f"{{_target_: torch.nn.Sequential, _args_: [[{{a: {{b: [{node}]}}}}]]}}"
        at("nested", f"{name} far down", *use_recipe, files=recipe(f"dataset: {{initial: {deep}}}"))
        partial = node.replace("{_target_", "{_partial_: true, _target_", 1)
        called = f"{{_target_: torchvision.transforms.v2.Lambda, lambd: {partial}}}"
        at("nested", f"{name}, partial", *use_recipe, files=recipe(f"augmentation: {{transform: {called}}}"))
        if name not in ("event files elsewhere",):
            at("tracker", name, *use_recipe, files=recipe(f"tracker: {{evil: {node}}}"))
            at("--config-dir", f"{name} as an option of model", "--config-dir", "more", "model=evil",
               files={"more/model/evil.yaml": node})  # fmt: skip
        at("resume folder", name, prepare=in_run("model", node))
        at("resume folder", f"{name} as dataset", prepare=in_run("dataset", node))
    found = [
        Case(case.entry, case.name, ("resume=run",), prepare=case.prepare) if case.entry == "resume folder" else case
        for case in found
    ]
    at = lambda entry, name, *arguments, **more: found.append(Case(entry, name, (*TINY, *arguments), **more))  # noqa: E731

    own = "model: {_target_: my.Net}\nx: {t: os.system}\n"
    for name, value in {
        "a target by interpolation": "${x.t}", "by oc.select": "${oc.select:x.t}", "escaped": "\\${x.t}",
    }.items():  # fmt: skip
        at("interpolation", name, *use_recipe, files=recipe(own.replace("my.Net", f"'{value}'")))
    created = '${oc.create:"{_target_: os.system, command: touch {marker}}"}'
    for name, text in {"a node by oc.create": created, "a node by oc.create, escaped": f"\\{created}"}.items():
        at("interpolation", name, *use_recipe, files=recipe(f"loss:\n  weight: >-\n    {text}"))
    at("interpolation", "a type by oc.coerce", "+x=${oc.coerce:evil_module.Net,1}")
    allow = ("+hydra.job.env_set.IOLAUS_ALLOW='torch.*'", *to_overrides("dataset", LOAD))
    found.append(Case("environment", "IOLAUS_ALLOW", (*DIGITS, *allow)))
    allow_in_file = recipe(f"dataset: {LOAD}\nhydra: {{job: {{env_set: {{IOLAUS_ALLOW: 'torch.*'}}}}}}")
    found.append(Case("environment", "IOLAUS_ALLOW in a recipe", (*DIGITS, *use_recipe), allow_in_file))
    for name in ("LD_PRELOAD", "TORCH_HOME", "HF_HOME", "WANDB_BASE_URL", "PYTHONPATH"):
        at("environment", name, *use_recipe, files=recipe(f"hydra: {{job: {{env_set: {{{name}: '{{outside}}'}}}}}}"))
    for name in ("torch.load", "os.system", "the JSONL tracker", "timm's load_state_dict", "a module of the folder"):
        at("callbacks", name, *use_recipe, files=recipe(f"hydra: {{callbacks: {{evil: {NODES[name]}}}}}"))
        at("callbacks", f"{name}, in a multirun", "-m", "seed=0,1", *use_recipe,
           files=recipe(f"hydra: {{callbacks: {{evil: {NODES[name]}}}}}"))  # fmt: skip
    loggings = {
        "a factory": "{handlers: {evil: {(): os.system, command: touch {marker}}}, root: {handlers: [evil]}}",
        "a formatter's factory": "{formatters: {short: {(): os.system, command: touch {marker}}}}",
        "a file elsewhere": "{handlers: {file: {class: logging.FileHandler, filename: '{outside}/victim'}}}",
        "a file emptied": "{handlers: {file: {mode: w}}}",
        "a file by a climbing path": "{handlers: {file: {filename: '../outside/new'}}}",
        "a rotating file": "{handlers: {file: {class: logging.handlers.RotatingFileHandler, filename: x}}}",
        "an ext:// object": "{handlers: {console: {stream: 'ext://evil_module.run'}}}",
        "a filter's factory": "{filters: {evil: {(): evil_module.run}}}",
    }
    for name, node in loggings.items():
        for key in ("job_logging", "hydra_logging"):
            at(key, name, *use_recipe, files=recipe(f"hydra: {{{key}: {node}}}"))
        at("job_logging", f"{name}, in a multirun", "-m", "seed=0,1", *use_recipe,
           files=recipe(f"hydra: {{job_logging: {node}}}"))  # fmt: skip
    hydra = {
        "launcher": {
            "a class": "{launcher: {_target_: os.system}}",
            "a callable of a library": "{launcher: {_target_: timm.models.load_state_dict}}",
        },
        "sweeper": {
            "a class": "{sweeper: {_target_: evil_module.run}}",
            "the plugin's own": f"{{sweeper: {{_target_: {PLUGIN}}}}}",
        },
        "folders": {
            "hydra.run.dir": "{run: {dir: '{outside}/run'}}",
            "hydra.sweep.dir": "{sweep: {dir: '{outside}/sweep'}}",
            "a climbing subdir": "{sweep: {subdir: '../../../outside/x'}}",
            "an absolute subdir": "{sweep: {subdir: '{outside}/x'}}",
            "output_subdir": "{output_subdir: '../../../../outside'}",
        },
    }
    for entry, nodes in hydra.items():
        for name, node in nodes.items():
            at(entry, name, "-m", "seed=0,1", *use_recipe, files=recipe(f"hydra: {node}"))
    at("folders", "study=../../x", "-m", "seed=0,1", "study=../../outside")
    at("folders", "a study of a recipe", "-m", "seed=0,1", *use_recipe, files=recipe("study: ../../outside"))
    joblib = ("-m", "seed=0,1", "hydra/launcher=joblib", *use_recipe)
    at("launcher", "joblib's temp_folder", *joblib, files=recipe("hydra: {launcher: {temp_folder: '{outside}/t'}}"))
    at("launcher", "joblib's pre_dispatch", *joblib, files=recipe("hydra: {launcher: {pre_dispatch: '().x*n_jobs'}}"))
    search = ("-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", "optimizer.lr=interval(0.1,0.2)", *use_recipe)
    for name in ("os.system", "torch.load", "timm's load_state_dict", "the JSONL tracker"):
        for part in ("sampler", "pruner"):
            node = re.sub(r", .*", "}", NODES[name])
            at(part, name, *search, files=recipe(f"hydra: {{sweeper: {{{part}: {node}}}}}"))
    wrapped = f"{{_target_: optuna.pruners.PatientPruner, patience: 1, wrapped_pruner: {SYSTEM}}}"
    at("pruner", "nested", *search, files=recipe(f"hydra: {{sweeper: {{pruner: {wrapped}}}}}"))
    constrained = "{constraints_func: {_target_: evil_module.run, _partial_: true}}"
    at("sampler", "nested", *search, files=recipe(f"hydra: {{sweeper: {{sampler: {constrained}}}}}"))
    at("sweeper", "a space by a function", *search,
       files=recipe("hydra: {sweeper: {custom_search_space: evil_module.run}}"))  # fmt: skip
    at("sweeper", "a target in params", "-m", *use_recipe,
       files=recipe("hydra: {sweeper: {params: {model._target_: evil_module.Net}}}"))  # fmt: skip
    at("sweeper", "a storage elsewhere", *search,
       files=recipe("hydra: {sweeper: {storage: 'sqlite:///{outside}/new.db'}}"))  # fmt: skip
    at("--config-dir", "a package to search in", "--config-dir", "more", "--config-name", "evil",
       files={"more/evil.yaml": "defaults: [config]\nhydra: {searchpath: [pkg://antigravity]}"})  # fmt: skip
    rerun = {
        "outputs/run/.hydra/hydra.yaml": "hydra: {overrides: {hydra: []}, job: {config_name: config, id: a, num: 0}}",
        "outputs/run/.hydra/overrides.yaml": "".join(f"- '{o}'\n" for o in (*DIGITS, *to_overrides("dataset", LOAD))),
    }
    found.append(Case("run folder", "given to --experimental-rerun", ("--experimental-rerun", "outputs/run"), rerun))
    evil_log = "hydra: {job_logging: {handlers: {file: {filename: '{outside}/victim'}}}}"
    swept = {"more/experiment/fine.yaml": "# @package _global_\nseed: 1\n", **recipe(evil_log)}
    at("job_logging", "of one job of a grid", "-m", "--config-dir", "more", "experiment=evil,fine", files=swept)
    at("job_logging", "of one job in a worker process", "-m", "--config-dir", "more", "experiment=evil,fine",
       "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", files=swept)  # fmt: skip
    climbing = {**swept, **recipe("hydra: {sweep: {subdir: ../../outside/x}}")}
    at("folders", "of one job of a grid", "-m", "--config-dir", "more", "experiment=evil,fine", files=climbing)
    for name in ("run.log", ".lock", "wandb-id", "metrics.jsonl"):
        found.append(Case("resume folder", f"{name} is a link", ("resume=run",), prepare=linked("run", name)))
    for name in ("multirun.yaml", ".trials/begin.lock", "optuna.journal"):
        at("study folder", f"{name} is a link", "-m", "seed=0,1", "study=s", prepare=linked("outputs/s", name, False))
    multirun = {"s/0/results.json": '{"status": "finished"}', "s/0/.hydra/overrides.yaml": "[]"}
    for name, url in {
        "a new file": "sqlite:///{outside}/new.db", "another program's": "sqlite:///{outside}/cookies.db",
        "no database": "sqlite:///{outside}/victim", "options": "sqlite:///file:{outside}/new.db?uri=true&mode=rwc",
        "another driver": "access:///{outside}/new.db",
    }.items():  # fmt: skip
        storage = f"hydra: {{sweeper: {{storage: '{url}', study_name: null}}}}\n"
        files = {**multirun, "s/multirun.yaml": storage}
        found.append(Case("study folder", f"reported: {name}", ("s",), files, report=True, prepare=with_database))
    return found


def to_overrides(key: str, node: str) -> list[str]:
    """A node that takes the place of a group's target, as overrides of the command line."""
    import yaml

    words = {"{evil}": "<evil>", "{outside}": "<outside>", "{marker}": "<marker>"}
    for name, word in words.items():
        node = node.replace(name, word)
    values = yaml.safe_load(node)
    lines = [f"{'' if name == '_target_' else '+'}{key}.{name}={to_value(value)}" for name, value in values.items()]
    for name, word in words.items():
        lines = [line.replace(word, name) for line in lines]
    return lines


def to_value(value: Any) -> str:
    """A plain value in Hydra's syntax."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{to_value(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(to_value, value)) + "]"
    if isinstance(value, bool | int):
        return str(value).lower()
    return '"' + value.replace('"', '\\"') + '"'
