"""Starting weights from a file: all of them, all but the classifier, or one line that says why not."""

import argparse
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from iolaus.files import checkpoint
from iolaus.models.cnn import CNN
from iolaus.models.mlp import MLP
from iolaus.models.timm import build
from iolaus.models.weights import load_weights

CLASSES = ["cat", "dog", "eel"]


def cnn(num_classes=3, seed=0, **kwargs):
    torch.manual_seed(seed)
    return CNN(num_classes, in_channels=3, widths=(4, 8), **kwargs)


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other, but=()):
    """Whether two state dicts are equal, but for the names in `but`, all of which differ."""
    different = {name for name in one if not torch.equal(one[name], other[name])}
    return one.keys() == other.keys() and different == set(but)


def best_of(model, classes=CLASSES):
    return {"model": model.state_dict(), "metrics": {"val/accuracy": 0.5}, "classes": classes}


def refusal(model, path, **kwargs):
    """What loading complains of, after `weights=PATH: `; the model must be as it was."""
    before = state_of(model)
    with pytest.raises(ValueError, match="weights=") as caught:
        load_weights(model, path, **kwargs)
    line = str(caught.value)
    assert same(before, model.state_dict())
    assert line.startswith(f"weights={path}: ")
    assert len(line.splitlines()) == 1
    return line.removeprefix(f"weights={path}: ")


@pytest.mark.parametrize("given", ["file", "folder", "text"])
def test_best_of_a_run_gives_equal_logits(tmp_path, given):
    trained, model, images = cnn(seed=1), cnn(seed=2).eval(), torch.randn(2, 3, 8, 8)
    trained(images)  # moves BatchNorm's statistics
    checkpoint.save(tmp_path / "best.pt", best_of(trained))
    path = {"file": tmp_path / "best.pt", "folder": tmp_path, "text": str(tmp_path / "best.pt")}[given]

    assert load_weights(model, path, classes=CLASSES) == f"weights of {tmp_path / 'best.pt'}: all 26 tensors"
    assert torch.equal(model(images), trained.eval()(images))


@pytest.mark.parametrize("averaged", [True, False])
def test_last_of_a_run_gives_the_average_where_there_is_one(tmp_path, averaged):
    live, average, model = cnn(seed=1), cnn(seed=2), cnn(seed=3)
    learner = {"model": live.state_dict(), "optimizer": {}, "ema": average.state_dict() if averaged else None}
    checkpoint.save(tmp_path / "last.pt", {"learner": learner, "state": {"epoch": 1}})

    line = load_weights(model, tmp_path / "last.pt", classes=CLASSES)

    assert same((average if averaged else live).state_dict(), model.state_dict())
    assert (", averaged: all 26" in line) is averaged


def test_last_of_a_run_before_there_were_averages_is_read(tmp_path):
    live, model = cnn(seed=1), cnn(seed=2)
    checkpoint.save(tmp_path / "last.pt", {"learner": {"model": live.state_dict()}, "state": {}})
    load_weights(model, tmp_path / "last.pt")
    assert same(live.state_dict(), model.state_dict())


def test_resnet18_of_ten_classes_gives_one_of_five_all_but_the_classifier(tmp_path):
    ten, five = build("resnet18", 10), build("resnet18", 5)
    torch.save(ten.state_dict(), tmp_path / "ten.pth")
    fresh = {name: value.clone() for name, value in five.fc.state_dict().items()}

    line = load_weights(five, tmp_path / "ten.pth")

    told = "120 of 122 tensors; the classifier starts fresh (10 classes there, 5 here)"
    assert line == f"weights of {tmp_path / 'ten.pth'}: {told}"
    assert same(fresh, five.fc.state_dict())
    body = {name: value for name, value in ten.state_dict().items() if not name.startswith("fc.")}
    assert same(body, {name: five.state_dict()[name] for name in body})


@pytest.mark.parametrize("model", ["deit_tiny_distilled_patch16_224", "convnext_atto", "levit_128s"])
def test_classifiers_of_timm_are_known_whatever_their_form(tmp_path, model):
    kwargs = {"depth": 1} if model.startswith("deit") else {}
    source, target = (build(model, count, image_size=224 if kwargs else 32, **kwargs) for count in (4, 3))
    torch.save(source.state_dict(), tmp_path / "w.pt")
    assert "the classifier starts fresh (4 classes there, 3 here)" in load_weights(target, tmp_path / "w.pt")


CONTAINERS = {
    **{key: lambda state, key=key: {key: state, "epoch": 3}
       for key in ("state_dict", "model_state_dict", "model", "model_ema", "state_dict_ema", "net")},
    "plain": lambda state: state,
    "ordered": OrderedDict,
    "with the script's arguments": lambda state: {"model": state, "args": argparse.Namespace(lr=0.1, sizes=[1, 2])},
    "with no average": lambda state: {"model": state, "model_ema": None},
    "with another's weights under the average": lambda state: {
        "state_dict": {k: torch.zeros_like(v) for k, v in state.items()}, "state_dict_ema": state},
    "with entries that are no tensors": lambda state: {**state, "stages._extra_state": None, "version": "1"},
    "DistributedDataParallel": lambda state: {f"module.{k}": v for k, v in state.items()},
    "torch.compile": lambda state: {f"_orig_mod.{k}": v for k, v in state.items()},
    "both": lambda state: {"model": {f"module._orig_mod.{k}": v for k, v in state.items()}},
    "both, the other way": lambda state: {f"_orig_mod.module.{k}": v for k, v in state.items()},
}  # fmt: skip


@pytest.mark.parametrize("wrap", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_state_dicts_of_others_are_read_in_their_containers(tmp_path, wrap, zipped):
    trained, model = cnn(seed=1), cnn(seed=2)
    file = tmp_path / "weights.pth.tar"
    torch.save(wrap(trained.state_dict()), file, _use_new_zipfile_serialization=zipped)
    assert zipfile.is_zipfile(file) is zipped
    assert "all 26 tensors" in load_weights(model, file)
    assert same(trained.state_dict(), model.state_dict())


def test_averaged_model_of_torch_is_read(tmp_path):
    trained, model = cnn(seed=1), cnn(seed=2)
    torch.save(torch.optim.swa_utils.AveragedModel(trained).state_dict(), tmp_path / "swa.pt")
    load_weights(model, tmp_path / "swa.pt")
    assert same(trained.state_dict(), model.state_dict())


def test_prefix_stays_where_it_is_the_models_own(tmp_path):
    model = nn.ModuleDict({"module": nn.Linear(2, 3)})
    torch.save({name: torch.ones_like(value) for name, value in model.state_dict().items()}, tmp_path / "w.pt")
    load_weights(model, tmp_path / "w.pt")
    assert model["module"].weight.eq(1).all()


def test_safetensors_are_read(tmp_path):
    trained, model = cnn(seed=1), cnn(num_classes=4, seed=2)
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    line = load_weights(model, tmp_path / "model.safetensors")
    assert line.endswith(": 24 of 26 tensors; the classifier starts fresh (3 classes there, 4 here)")
    assert same(trained.stages.state_dict(), model.stages.state_dict())


@pytest.mark.parametrize(
    ("classes", "fresh"),
    [
        (CLASSES, ""),
        (None, ""),
        (["cat", "eel", "dog"], "class 1 is dog there and eel here"),
        (["cat", "dog"], "3 classes there, 2 here"),
    ],
)
def test_classifier_of_other_classes_starts_fresh(tmp_path, classes, fresh):
    trained, model = cnn(seed=1), cnn(num_classes=len(classes or CLASSES), seed=2)
    before = state_of(model.head)
    checkpoint.save(tmp_path / "best.pt", best_of(trained))
    line = load_weights(model, tmp_path / "best.pt", classes=classes)
    if fresh:
        assert line.endswith(f": 24 of 26 tensors; the classifier starts fresh ({fresh})")
        assert same(before, model.head.state_dict())
    else:
        assert same(trained.state_dict(), model.state_dict())
    assert same(trained.stages.state_dict(), model.stages.state_dict())


def test_classes_of_a_file_that_is_not_ours_are_not_compared(tmp_path):
    trained, model = cnn(seed=1), cnn(seed=2)
    torch.save({"model": trained.state_dict(), "metrics": {}, "classes": 3}, tmp_path / "w.pt")
    assert "all 26 tensors" in load_weights(model, tmp_path / "w.pt", classes=CLASSES)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda state: [state.pop("head.3.weight"), state.pop("head.3.bias")], "the file has none"),
        (lambda state: state.pop("head.3.bias"), "head.3.bias is not there and (3,) here"),
        (lambda state: state.update({"head.3.scale": torch.ones(3)}), "head.3.scale is (3,) there and not here"),
        (lambda state: state.update({"head.3.weight": torch.ones(3, 9)}),
         "head.3.weight is (3, 9) there and (3, 8) here"),
    ],
)  # fmt: skip
def test_classifier_of_another_form_starts_fresh_as_a_whole(tmp_path, change, why):
    trained, model = cnn(seed=1), cnn(seed=2)
    state, before = state_of(trained), state_of(model.head)
    change(state)
    torch.save(state, tmp_path / "w.pt")
    assert load_weights(model, tmp_path / "w.pt").endswith(f"24 of 26 tensors; the classifier starts fresh ({why})")
    assert same(before, model.head.state_dict())
    assert same(trained.stages.state_dict(), model.stages.state_dict())


def test_files_without_counters_of_batches_are_read(tmp_path):
    trained, model = cnn(seed=1), cnn(seed=2)
    state = {name: value for name, value in trained.state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "w.pt")
    line = load_weights(model, tmp_path / "w.pt")
    assert line.endswith(": 22 of 26 tensors; no num_batches_tracked there")
    assert same(trained.state_dict(), model.state_dict())


def test_channels_last_models_keep_their_layout(tmp_path):
    trained, model = cnn(seed=1), cnn(seed=2).to(memory_format=torch.channels_last)
    torch.save(trained.state_dict(), tmp_path / "w.pt")
    load_weights(model, tmp_path / "w.pt")
    weight = model.stages[1][0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    assert same(trained.state_dict(), model.state_dict())


def test_numbers_are_cast_to_the_models_and_parameters_stay_the_optimizers(tmp_path):
    trained, model = cnn(seed=1).half(), cnn(seed=2)
    model.stages.requires_grad_(False)
    before = {name: (p, p.requires_grad) for name, p in model.named_parameters()}
    torch.save(trained.state_dict(), tmp_path / "w.pt")
    load_weights(model, tmp_path / "w.pt")
    assert all(p is before[name][0] and p.requires_grad == before[name][1] for name, p in model.named_parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert same(trained.float().state_dict(), model.state_dict())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_models_stay_on_their_device(tmp_path):
    trained, model = cnn(seed=1), cnn(seed=2).cuda()
    torch.save(trained.cuda().state_dict(), tmp_path / "w.pt")
    load_weights(model, tmp_path / "w.pt")
    assert all(value.is_cuda for value in model.state_dict().values())
    assert same(trained.state_dict(), model.state_dict())


MISFITS = {
    "shape": (lambda s: s.update({"stages.0.0.weight": torch.ones(4, 1, 3, 3)}),
              "stages.0.0.weight is (4, 1, 3, 3) there and (4, 3, 3, 3) here"),
    "shapes": (lambda s: s.update({f"stages.0.1.{k}": torch.ones(5) for k in ("weight", "bias")}),
               "stages.0.1.weight is (5,) there and (4,) here (and 1 more difference)"),
    "missing": (lambda s: s.pop("stages.1.0.weight"), "it lacks stages.1.0.weight"),
    "several missing": (lambda s: [s.pop(f"stages.1.{i}.weight") for i in (0, 1, 3)],
                        "it lacks stages.1.0.weight (and 2 more)"),
    "unexpected": (lambda s: s.update({"fc1.weight": torch.ones(1)}),
                   "it has fc1.weight, which the model does not have"),
    "all three": (lambda s: s.update({"fc1.weight": s.pop("stages.1.0.weight"), "stages.0.1.bias": torch.ones(5)}),
                  "stages.0.1.bias is (5,) there and (4,) here (and 2 more differences)"),
}  # fmt: skip


@pytest.mark.parametrize("num_classes", [3, 2])
@pytest.mark.parametrize(("change", "line"), MISFITS.values(), ids=MISFITS)
def test_weights_of_another_body_are_refused_whole(tmp_path, change, line, num_classes):
    state = state_of(cnn(seed=1))
    change(state)
    torch.save(state, tmp_path / "w.pt")
    assert refusal(cnn(num_classes, seed=2), tmp_path / "w.pt") == f"does not fit CNN: {line}"


def test_weights_of_another_architecture_are_refused(tmp_path):
    torch.save(MLP(3, in_channels=3, image_size=8).state_dict(), tmp_path / "w.pt")
    assert refusal(cnn(), tmp_path / "w.pt") == "does not fit CNN: it lacks stages.0.0.weight (and 25 more differences)"


def test_linear_classifier_of_other_classes_leaves_nothing_to_load(tmp_path):
    ten, five = (MLP(count, in_channels=1, image_size=8, hidden=()) for count in (10, 5))
    torch.save(ten.state_dict(), tmp_path / "w.pt")
    assert "the model is a classifier alone" in refusal(five, tmp_path / "w.pt")


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # of torch 2.11
def test_tensor_that_cannot_be_copied_changes_nothing(tmp_path):
    state = state_of(cnn(seed=1))
    state["head.3.bias"] = torch.sparse_coo_tensor([[0]], [1.0], (3,), check_invariants=True)  # after all others
    torch.save(state, tmp_path / "w.pt")
    refusal(cnn(seed=2), tmp_path / "w.pt")


@pytest.mark.parametrize(("saved", "wanted"), [("large", "small"), ("small", "large")])
def test_stem_of_another_shape_comes_with_the_stem_that_fits(tmp_path, saved, wanted):
    there, here = build("resnet18", 10, stem=saved), build("resnet18", 5, stem=wanted)
    torch.save(there.state_dict(), tmp_path / "w.pt")
    shapes = [str(tuple(model.conv1.weight.shape)) for model in (there, here)]
    line = refusal(here, tmp_path / "w.pt")
    assert line == (f"does not fit ResNet: conv1.weight is {shapes[0]} there and {shapes[1]} here; "
                    f"model.stem={saved} takes the file's stem")  # fmt: skip
    load_weights(build("resnet18", 5, stem=saved), tmp_path / "w.pt")


def test_stem_for_other_channels_comes_without_advice(tmp_path):
    torch.save(build("resnet18", 5, in_channels=1).state_dict(), tmp_path / "w.pt")
    line = refusal(build("resnet18", 5), tmp_path / "w.pt")
    assert line == "does not fit ResNet: conv1.weight is (64, 1, 3, 3) there and (64, 3, 3, 3) here"


def damaged(path: Path):
    """A checkpoint with one byte of its weights flipped, which torch would load."""
    checkpoint.save(path, best_of(cnn()))
    content = bytearray(path.read_bytes())
    content[content.index(cnn().stages[1][3].weight.detach().numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)


def cut(path: Path, **kwargs):
    torch.save(cnn().state_dict(), path, **kwargs)
    path.write_bytes(path.read_bytes()[:-500])


NOT_READ = {
    "flipped.pt": (damaged, "the checkpoint is damaged (checksum of "),
    "cut.pt": (cut, "no file of weights, or a damaged one ("),
    "cut_legacy.pt": (lambda p: cut(p, _use_new_zipfile_serialization=False), "no file of weights, or a damaged one ("),
    "garbage.pt": (lambda p: p.write_bytes(b"these are no weights " * 50), "no file of weights, or a damaged one ("),
    "garbage.safetensors": (lambda p: p.write_bytes(b"no weights " * 50), "no file of weights, or a damaged one ("),
    "empty.pth": (lambda p: p.touch(), "no file of weights, or a damaged one ("),
    "other.zip": (lambda p: zipfile.ZipFile(p, "w").close(), "the checkpoint is damaged ("),
    "model.pt": (lambda p: torch.save(cnn(), p), "it holds a iolaus.models.cnn.CNN, and only tensors are read"),
    "legacy_model.pt": (lambda p: torch.save(cnn(), p, _use_new_zipfile_serialization=False),
                        "it holds a iolaus.models.cnn.CNN, and only tensors are read"),
    "numbers.pt": (lambda p: torch.save({"model": {"lr": 0.1}, "epoch": 3}, p), "it holds no tensors by name"),
    "list.pt": (lambda p: torch.save([torch.ones(3)], p), "it holds no tensors by name"),
    "tensor.bin": (lambda p: torch.save(torch.ones(3), p), "it holds no tensors by name"),
    "none.safetensors": (lambda p: save_file({}, p), "it holds no tensors by name"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_READ)
def test_files_that_hold_no_weights_are_one_line(tmp_path, name):
    write, line = NOT_READ[name]
    write(tmp_path / name)
    assert refusal(cnn(), tmp_path / name).startswith(line)


def test_missing_file_is_named_with_the_nearest_ones(tmp_path, monkeypatch):
    for name in ("resnet18_a1.pth", "resnet18_a2.pth", "notes.txt"):
        (tmp_path / name).touch()
    looked = f"no such file, looked for {tmp_path / 'resnet18_b1.pth'}"
    near = "nearest names there: resnet18_a1.pth, resnet18_a2.pth"
    assert refusal(cnn(), tmp_path / "resnet18_b1.pth") == f"{looked}; {near}"
    monkeypatch.chdir(tmp_path)
    assert refusal(cnn(), "resnet18_b1.pth") == f"{looked}; {near}"
    assert refusal(cnn(), "xyz") == f"no such file, looked for {tmp_path / 'xyz'}"
    assert refusal(cnn(), "runs/best.pt") == f"no such file; there is no folder {tmp_path / 'runs'} either"


def test_folder_without_best_is_one_line(tmp_path):
    (tmp_path / "last.pt").touch()
    looked = f"a folder without best.pt, looked for {tmp_path / 'best.pt'}"
    assert refusal(cnn(), tmp_path) == f"{looked}; nearest names there: last.pt"


def test_home_is_meant_by_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(cnn(seed=1).state_dict(), tmp_path / "w.pt")
    assert load_weights(cnn(seed=2), "~/w.pt") == f"weights of {tmp_path / 'w.pt'}: all 26 tensors"
