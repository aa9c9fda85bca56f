"""Whatever the policy lets through only computes: each callable of the installed libraries is looked at."""

import ast
import functools
import importlib
import inspect
import pkgutil
import textwrap
import types
import warnings

import pytest
import yaml
from conftest import ROOT

from iolaus.config.node import read_node
from iolaus.errors import ConfigError
from iolaus.trust.policy import OWN_PARTS, RUN_PARTS, TRACKERS
from iolaus.trust.targets import locate

PACKAGES = ("torch.nn", "torch.optim", "torchvision", "timm", "iolaus")
# The modules no permitted object may come from.
FORBIDDEN_HOMES = ("torch.serialization", "torch.hub", "torch.jit", "timm.utils", "timm.task", "timm.models._hub",
                   "timm.models._helpers", "timm.models._builder", "timm.models._factory", "torchvision.io",
                   "torchvision.datasets.utils", "iolaus.files", "iolaus.show", "iolaus.studies", "iolaus.run",
                   "iolaus.report", "iolaus.machine", "iolaus.config", "iolaus.trust", "os", "subprocess",
                   "shutil")  # fmt: skip
FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "torch.load", "torch.save", "np.save",
    "os.remove", "os.unlink", "os.rename", "os.replace", "os.system", "os.popen", "os.rmdir", "os.makedirs", "os.mkdir",
    "importlib.import_module", "import_module", "extractall", "urlretrieve", "write_text", "write_bytes", "unlink",
    "load_state_dict_from_url", "download_and_extract_archive", "extract_archive", "download_url", "mkdir", "rename",
}  # fmt: skip
FORBIDDEN_MODULES = ("shutil", "subprocess", "pickle", "urllib")
DOWNLOADING = {
    "download_and_extract_archive", "download_url", "extract_archive", "os.makedirs", "os.rename", "os.remove",
    "shutil.rmtree", "shutil.move",
}  # fmt: skip
# What a permitted callable does all the same: (where, by the beginning of its name; the calls; why it may).
REVIEWED = (
    ("torchvision.datasets.", DOWNLOADING, "dataset.download: its own files, from its own address, below its root"),
    ("torchvision.datasets.cifar.", {"pickle.load"}, "after a check of the files' MD5"),
    ("torchvision.datasets.phototour.", {"z.extractall", "os.unlink"}, "its own download, checked by MD5"),
    ("torchvision.datasets.phototour.", {"torch.save", "open for writing"}, "a cache below its root"),
    ("iolaus.data.sources.from_torchvision", {"os.rmdir"}, "empty folders that a failed download has made"),
)


def modules():
    """All modules of the packages that can be imported here."""
    found = []
    for name in PACKAGES:
        package = importlib.import_module(name)
        found.append(package)
        for info in pkgutil.walk_packages(package.__path__, f"{name}.", onerror=lambda _: None):
            if info.name.endswith("__main__"):
                continue
            with warnings.catch_warnings(action="ignore"):
                try:
                    found.append(importlib.import_module(info.name))
                except Exception:
                    continue
    return found


@pytest.fixture(scope="module")
def permitted():
    """(dotted path, object) of every callable that a configuration may name, each object once."""
    found = {}
    for module in modules():
        for name in dir(module):
            path = f"{module.__name__}.{name}"
            thing = getattr(module, name, None)
            if not callable(thing) or not path.startswith(RUN_PARTS.packages):
                continue
            if RUN_PARTS.permits(path, thing):
                found.setdefault(id(thing), (path, thing))
    return list(found.values())


def home_of(thing):
    return getattr(thing, "__module__", None) or type(thing).__module__


@functools.cache
def calls_of(function):
    """The dotted names that a function's source text calls; `open` in a mode that writes is `open for writing`."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return set()
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            names.add(name)
            given = [*node.args[1:], *(k.value for k in node.keywords if k.arg == "mode")]
            modes = [a.value for a in given if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            if name in ("open", "io.open") and any(set("wax+") & set(mode) for mode in modes):
                names.add("open for writing")
            if name.endswith("load") and any(k.arg == "weights_only" for k in node.keywords):
                values = [k.value for k in node.keywords if k.arg == "weights_only"]
                if all(isinstance(v, ast.Constant) and v.value is True for v in values):
                    names.discard(name)
            if name.endswith("import_module") and all(isinstance(arg, ast.Constant) for arg in node.args):
                names.discard(name)
            if any(k.arg == "allow_pickle" and not is_false(k.value) for k in node.keywords):
                names.add("allow_pickle")
    return names


def is_false(node):
    return isinstance(node, ast.Constant) and node.value is False


def is_forbidden(call):
    return (
        call in FORBIDDEN_CALLS
        or call.split(".")[0] in FORBIDDEN_MODULES
        or (call.rpartition(".")[2] in FORBIDDEN_CALLS - {"eval", "compile"} and not call.startswith("re."))
        or call in ("open for writing", "allow_pickle")
    )


def functions_that_run(thing):
    """What calling a target runs: the function, or of a class all that makes and uses an object."""
    if not isinstance(thing, type):
        return [inspect.unwrap(thing)]
    own = [c for c in thing.__mro__ if c.__module__.split(".")[0] in ("torchvision", "timm", "iolaus")]
    own += [c for c in thing.__mro__ if c.__module__.startswith(("torch.nn.modules", "torch.optim"))]
    members = [f for c in own for f in vars(c).values()]
    functions = [f.__func__ if isinstance(f, staticmethod | classmethod) else f for f in members]
    return [f for f in functions if isinstance(f, types.FunctionType)]


def test_much_is_permitted(permitted):
    paths = {path for path, _ in permitted}
    things = [thing for _, thing in permitted]
    assert len(things) > 2000
    import timm
    import torch
    import torchvision
    from torchvision.transforms import v2

    for thing in (torch.nn.Linear, torch.nn.CrossEntropyLoss, torch.optim.AdamW, torch.optim.lr_scheduler.OneCycleLR,
                  torchvision.datasets.CIFAR10, torchvision.datasets.ImageFolder, v2.AugMix, v2.functional.invert,
                  torchvision.models.resnet18, timm.models.resnet18, timm.loss.BinaryCrossEntropy,
                  torch.nn.functional.gelu, torch.nn.functional.conv2d, torch.nn.functional.relu):  # fmt: skip
        assert any(thing is one for one in things), thing
    assert paths >= OWN_PARTS


def test_nothing_that_is_permitted_comes_from_a_module_that_reads_or_writes(permitted):
    wrong = [
        path for path, thing in permitted if f"{home_of(thing)}.".startswith(tuple(f"{h}." for h in FORBIDDEN_HOMES))
    ]
    assert wrong == []


def test_nothing_that_is_permitted_unpickles_runs_or_writes(permitted):
    """By its source text; what does so all the same is in REVIEWED, with the reason."""
    found = {}
    for path, thing in permitted:
        for function in functions_that_run(thing):
            calls = sorted(filter(is_forbidden, calls_of(function)))
            name = f"{home_of(function)}.{function.__qualname__}"
            reviewed = set().union(*(known for where, known, _ in REVIEWED if name.startswith(where)))
            if set(calls) - reviewed:
                found.setdefault(name, (path, calls))
    assert found == {}


def test_datasets_that_unpickle_unchecked_files_are_refused():
    from torchvision import datasets

    for name in datasets.__all__:
        unpickles = any(
            "pickle.load" in call for f in functions_that_run(getattr(datasets, name)) for call in calls_of(f)
        )
        if unpickles and name not in ("CIFAR10", "CIFAR100"):
            with pytest.raises(ConfigError, match="a configuration may name"):
                locate("dataset", {"_target_": f"torchvision.datasets.{name}"})
    with pytest.raises(ConfigError, match="a configuration may name"):
        locate("dataset", {"_target_": "torchvision.datasets.LSUN"})


def targets_of(node):
    if isinstance(node, dict):
        yield from [node["_target_"]] if isinstance(node.get("_target_"), str) else []
        for value in node.values():
            yield from targets_of(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets_of(value)


def test_the_public_parts_are_those_that_conf_names():
    from iolaus.trust.hydra_node import ALLOWED_SWEEPERS, CALLBACKS, SLURM

    files = [*(ROOT / "conf").rglob("*.yaml"), *(ROOT / "experiments").rglob("*.yaml")]
    named = {t for file in files for t in targets_of(yaml.safe_load(file.read_text())) if t.startswith("iolaus.")}
    assert named == OWN_PARTS | TRACKERS | {*CALLBACKS, SLURM} | {
        t for t in ALLOWED_SWEEPERS if t.startswith("iolaus.")
    }


@pytest.mark.parametrize("target", sorted(OWN_PARTS))
def test_the_public_parts_are_there(target):
    assert callable(locate("model", {"_target_": target}))


def test_a_tracker_is_one_where_trackers_are_and_nowhere_else():
    target = {"_target_": "iolaus.show.trackers.TensorBoard"}
    assert callable(locate("tracker.tensorboard", target))
    for key in ("model", "model.layers[2]", "tracker.a.b", "tracker.a[0]"):
        with pytest.raises(ConfigError, match=r"only as tracker\.NAME"):
            locate(key, target)


NESTED = {
    "a list": ({"layers": [1, {"_target_": "os.system"}]}, "model.layers[1]._target_=os.system"),
    "a dict in a list": ({"a": [{"b": {"_target_": "os.system"}}]}, "model.a[0].b._target_=os.system"),
    "positional": ({"_args_": [[{"_target_": "os.system"}]]}, "model._args_[0][0]._target_=os.system"),
    "within another": (
        {"_args_": [{"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "os.system"}]}]},
        "model._args_[0]._args_[0]._target_=os.system",
    ),
    "not built by itself": ({"_recursive_": False, "a": {"_target_": "os.system"}}, "model.a._target_=os.system"),
}


@pytest.mark.parametrize(("arguments", "told"), NESTED.values(), ids=NESTED.keys())
def test_a_node_is_found_wherever_it_hides_and_its_key_is_named(arguments, told):
    problems = []
    assert read_node("model", {"_target_": "timm.models.resnet18", **arguments}, problems) is None
    assert [problem.partition(": ")[0] for problem in problems if "os.system" in problem] == [told]


@pytest.mark.parametrize(
    ("name", "value"),
    [("_execution_whitelist_", "os.*"), ("_partial_", "yes"), ("_args_", "x"), ("_isolate_", True), ("_convert_", 1)],
)
def test_what_a_node_may_say_to_hydra_is_a_short_list(name, value):
    with pytest.raises(ConfigError, match=rf"model\.{name}={value}: .*_partial_"):
        locate("model", {"_target_": "torch.nn.Linear", name: value})


def test_nested_nodes_are_built_in_lists_and_by_position():
    problems = []
    linear = {"_target_": "torch.nn.Linear", "in_features": 4, "out_features": 2}
    layers = [{"_target_": "torch.nn.Flatten"}, linear, {"_target_": "torch.nn.GELU"}]
    node = read_node("model", {"_target_": "torch.nn.Sequential", "_args_": layers}, problems)
    assert problems == []
    assert [type(layer).__name__ for layer in node.build()] == ["Flatten", "Linear", "GELU"]
    activation = {"_target_": "torch.nn.functional.gelu", "_partial_": True}
    layer = {"_target_": "torch.nn.TransformerEncoderLayer", "d_model": 4, "nhead": 2, "activation": activation}
    assert read_node("model", layer, problems) is not None, problems
    backbone = {"_target_": "timm.models.resnet18", "num_classes": 2}
    nested = read_node("model", {"_target_": "torch.nn.Sequential", "_args_": [backbone]}, problems)
    assert problems == []
    assert type(nested.build()[0]).__name__ == "ResNet"
