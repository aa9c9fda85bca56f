"""Parameter groups: blocks by depth, rates of their own, no decay, frozen parts, and Muon's weights."""

import copy
import dataclasses
import itertools

import pytest
import torch
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn

from iolaus.methods.depth import classifier_of, depth_blocks, hidden_weights
from iolaus.methods.param_groups import describe, frozen_modules, parameter_groups
from iolaus.models.cnn import CNN
from iolaus.models.mlp import MLP
from iolaus.settings import OptimizerGroups

QUARTERS = [0.25, 0.5, 1.0]
SGD = {"lr": 0.01, "weight_decay": 5e-4}
ADAMW = {"kind": "adamw", "lr": 1e-3, "weight_decay": 0.1}

# how the name of each block's first parameter begins
BLOCKS = {
    "resnet18": ["conv1", "layer1", "layer2", "layer3", "layer4"],
    "resnet50": ["conv1", "layer1", "layer2", "layer3", "layer4"],
    "resnest14d": ["conv1", "layer1", "layer2", "layer3", "layer4"],
    "resnetv2_18": ["stem", "stages.0", "stages.1", "stages.2", "stages.3"],
    "efficientnet_b0": ["conv_stem", *(f"blocks.{i}" for i in range(7))],
    "vit_tiny_patch16_224": ["cls_token", *(f"blocks.{i}" for i in range(12))],
    "vgg16_bn": [f"features.{i}" for i in (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)],
    "rdnet_tiny": ["stem", *(f"dense_stages.{i}" for i in range(7))],  # which has no coarse grouping
    "cnn": ["stages.0", "stages.1", "stages.2"],
    "mlp": ["layers.1", "layers.4"],
}
CLASSIFIERS = {
    "resnetv2_18": "head.fc", "rdnet_tiny": "head.fc", "efficientnet_b0": "classifier", "vgg16_bn": "head.fc",
    "vit_tiny_patch16_224": "head", "cnn": "head.3", "mlp": "layers.7",
}  # fmt: skip


def build(name, device="meta"):
    """A model for 32×32 images; without its numbers (device meta) it is there at once."""
    from iolaus.models import timm

    with torch.device(device):
        if name == "cnn":
            return CNN(10, 1)
        return MLP(10, 1, 8, hidden=(16, 12)) if name == "mlp" else timm.build(name, 10, image_size=32)


def names_of(model, group):
    ids = {id(p) for p in group["params"]}
    return {name for name, p in model.named_parameters() if id(p) in ids}


def by_name(model, groups):
    """The group of each parameter; a parameter in two of them fails."""
    found = [(name, group) for group in groups for name in names_of(model, group)]
    assert len(found) == len(dict(found)) == sum(len(group["params"]) for group in groups)
    return dict(found)


def spared(model):
    """Norms, biases, and what a timm model names itself."""
    own = model.no_weight_decay() if hasattr(model, "no_weight_decay") else set()
    return {name for name, p in model.named_parameters() if p.ndim <= 1 or name in own}


class Wrapped(nn.Module):
    """A person's own model: a backbone of timm's, without a classifier, under a linear layer."""

    def __init__(self):
        super().__init__()
        import timm

        self.backbone, self.fc = timm.create_model("resnet18", num_classes=0), nn.Linear(512, 3)


class Tokens(nn.Module):
    """A transformer's outline: parameters of its own, an embedding, blocks, a last norm."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(6, 8))
        self.embed = nn.Embedding(6, 8)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)) for _ in range(3))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 4)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_blocks_go_from_the_input_to_the_classifier(name):
    model = build(name)
    blocks = depth_blocks(model)
    assert [block[0][: len(start)] for block, start in zip(blocks, BLOCKS[name], strict=True)] == BLOCKS[name]
    classifier = CLASSIFIERS.get(name, "fc")
    assert classifier_of(model) == {f"{classifier}.weight", f"{classifier}.bias"}
    everything = [*itertools.chain(*blocks), *classifier_of(model)]
    assert sorted(everything) == sorted(name for name, _ in model.named_parameters())


def test_a_last_norm_belongs_to_the_last_block_and_one_of_the_input_to_the_first():
    assert {"stages.3.blocks.1.conv2.weight", "norm.weight", "norm.bias"} <= set(depth_blocks(build("resnetv2_18"))[-1])
    assert {"blocks.11.mlp.fc2.weight", "norm.weight"} <= set(depth_blocks(build("vit_tiny_patch16_224"))[-1])
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.Linear(8, 2))
    assert depth_blocks(model) == [
        ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"],
        ["3.weight", "3.bias"],
    ]


def test_the_blocks_of_a_backbone_under_a_classifier_of_ones_own_are_the_backbones():
    starts = [block[0].split(".")[:2] for block in depth_blocks(Wrapped())]
    assert starts == [["backbone", part] for part in BLOCKS["resnet18"]]


def test_tokens_belong_to_the_input_and_modules_in_a_list_are_blocks():
    blocks = depth_blocks(Tokens())
    assert blocks[0] == ["positions", "embed.weight"]
    assert [len(block) for block in blocks] == [2, 4, 4, 6]
    assert hidden_weights(Tokens()) == {f"blocks.{i}.0.weight" for i in range(3)}


def test_a_shared_parameter_is_counted_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    model[1].weight = model[0].weight
    assert depth_blocks(model) == [["0.weight", "0.bias", "1.bias"]]
    assert len(by_name(model, parameter_groups(model, **SGD, lr_factors=[0.5]))) == 5


@pytest.mark.parametrize("classifier", [nn.Identity(), (), None])
def test_without_a_classifier_that_learns_it_is_the_last_linear_layer_or_the_last_convolution(classifier):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2), nn.LayerNorm(2))
    model.get_classifier = lambda: classifier
    assert classifier_of(model) == {"1.weight", "1.bias"}
    assert classifier_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1))) == {"1.weight", "1.bias"}


def test_a_model_can_have_two_classifiers():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 2))
    model.get_classifier = lambda: (model[1], model[2])
    assert depth_blocks(model) == [["0.weight", "0.bias"]]


@pytest.mark.parametrize("name", ["resnet18", "cnn", "mlp"])
def test_without_options_all_parameters_are_one_group_in_the_models_order(name):
    model = build(name)
    (group,) = parameter_groups(model, **SGD)
    assert {key: value for key, value in group.items() if key != "params"} == {"name": "all", **SGD}
    assert list(map(id, group["params"])) == list(map(id, model.parameters()))


def test_resnet50_learns_at_a_quarter_before_layer3_at_half_in_it_and_fully_after():
    model = build("resnet50")
    groups = parameter_groups(model, **SGD, lr_factors=QUARTERS)
    assert [group["name"] for group in groups] == ["blocks 1-3", "block 4", "block 5", "classifier"]
    rates = {"conv1": 0.25, "bn1": 0.25, "layer1": 0.25, "layer2": 0.25, "layer3": 0.5, "layer4": 1.0, "fc": 1.0}
    found = by_name(model, groups)
    assert found.keys() == dict(model.named_parameters()).keys()
    for name, group in found.items():
        assert group["lr"] == pytest.approx(0.01 * rates[name.split(".")[0]]), name
        assert group["weight_decay"] == 5e-4


@pytest.mark.parametrize("rest", [None, ADAMW])
@pytest.mark.parametrize("name", [name for name in BLOCKS if name != "mlp"])
def test_every_parameter_is_in_exactly_one_group_whatever_is_split(name, rest):
    model = build(name)
    groups = parameter_groups(model, **SGD, lr_factors=QUARTERS, no_decay_on_norm_and_bias=True, rest=rest)
    assert by_name(model, groups).keys() == dict(model.named_parameters()).keys()
    names = [group["name"] for group in groups]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", BLOCKS)
def test_exactly_norms_biases_and_what_a_model_names_are_without_decay(name):
    model = build(name)
    decayed, rest = parameter_groups(model, **SGD, no_decay_on_norm_and_bias=True)
    assert names_of(model, rest) == spared(model)
    assert (decayed["name"], decayed["weight_decay"]) == ("all", 5e-4)
    assert (rest["name"], rest["weight_decay"], rest["lr"]) == ("all, no decay", 0.0, 0.01)


@pytest.mark.parametrize("weight_decay", [None, 0.0])
def test_where_nothing_decays_nothing_is_split(weight_decay):
    (group,) = parameter_groups(CNN(4, 1), lr=0.1, weight_decay=weight_decay, no_decay_on_norm_and_bias=True)
    assert group["name"] == "all"
    assert group.get("weight_decay") == weight_decay
    assert ("weight_decay" in group) == (weight_decay is not None)


def test_the_classifier_can_have_a_factor_of_its_own_alone_too():
    groups = parameter_groups(CNN(4, 1), **SGD, classifier_lr_factor=10)
    assert [(group["name"], group["lr"]) for group in groups] == [("blocks 1-3", 0.01), ("classifier", 0.1)]
    groups = parameter_groups(MLP(4, 1, 8, hidden=()), **SGD, classifier_lr_factor=0.5)
    assert [(group["name"], group["lr"]) for group in groups] == [("classifier", 0.005)]


def test_what_is_frozen_is_in_no_group_and_gets_no_gradient():
    model = build("resnet18")
    groups = parameter_groups(model, **SGD, lr_factors=[0.0, 0.5, 1.0])
    assert [group["name"] for group in groups] == ["block 4", "block 5", "classifier"]
    trained = by_name(model, groups).keys()
    assert {name.split(".")[0] for name in trained} == {"layer3", "layer4", "fc"}
    assert trained == {name for name, p in model.named_parameters() if p.requires_grad}


def test_a_linear_probe_trains_the_classifier_only():
    model = build("vit_tiny_patch16_224")
    (group,) = parameter_groups(model, **SGD, lr_factors=[0.0], classifier_lr_factor=1.0)
    assert names_of(model, group) == {"head.weight", "head.bias"}


def test_what_came_frozen_stays_out():
    model = CNN(4, 1)
    model.stages[0].requires_grad_(False)
    groups = parameter_groups(model, **SGD, lr_factors=QUARTERS)
    assert [group["name"] for group in groups] == ["block 2", "block 3", "classifier"]


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("resnet18", {"conv1.weight", "fc.weight"}),
        ("resnest14d", {"conv1.0.weight", "fc.weight"}),  # of the deep stem only the first convolution
        ("vit_tiny_patch16_224", {"patch_embed.proj.weight", "head.weight"}),
        ("cnn", {"stages.0.0.weight", "head.3.weight"}),
        ("mlp", {"layers.7.weight"}),
    ],
)
def test_muon_gets_the_matrices_between_stem_and_classifier(name, left):
    model = build(name)
    groups = parameter_groups(model, **SGD, no_decay_on_norm_and_bias=True, rest=ADAMW)
    muon, adamw, rest = (group | {"params": names_of(model, group)} for group in groups)
    assert adamw["params"] == left
    assert rest["params"] == spared(model)
    assert muon["params"] == {name for name, _ in model.named_parameters()} - left - spared(model)
    assert muon == {"params": muon["params"], "name": "all, muon", **SGD, "use_muon": True}
    assert adamw == {"params": left, "name": "all, adamw", "lr": 1e-3, "weight_decay": 0.1, "use_muon": False}
    assert rest["name"] == "all, adamw, no decay"
    assert (rest["weight_decay"], rest["use_muon"]) == (0.0, False)


def test_depthwise_convolutions_and_narrow_matrices_are_not_muons():
    hidden = hidden_weights(build("efficientnet_b0"))
    assert "blocks.1.0.conv_pw.weight" in hidden
    assert not any("conv_dw" in name or "conv_stem" in name for name in hidden)
    model = nn.Sequential(nn.Linear(8, 3), nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2))
    assert hidden_weights(model) == {"2.weight"}


def test_the_factors_apply_to_both_of_muons_rates():
    groups = parameter_groups(CNN(4, 1), **SGD, lr_factors=[0.5, 1.0], rest=ADAMW)
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates["blocks 1-2, muon"] == pytest.approx(0.005)
    assert rates["blocks 1-2, adamw"] == pytest.approx(0.0005)
    assert rates["block 3, muon"] == 0.01
    assert rates["classifier, adamw"] == 0.001


def test_the_classifier_has_a_weight_decay_of_its_own_but_its_bias_none_where_biases_have_none():
    model = build("resnet18")
    for options, spared in (({}, 0), ({"no_decay_on_norm_and_bias": True}, 1)):
        groups = parameter_groups(model, lr=0.1, weight_decay=0.0, classifier_weight_decay=0.3, **options)
        decays = {name: group["weight_decay"] for group in groups for name in names_of(model, group)}
        assert decays.pop("fc.weight") == 0.3
        assert decays.pop("fc.bias") == (0.0 if spared else 0.3)
        assert set(decays.values()) == {0.0}
        assert {group["lr"] for group in groups} == {0.1}


def test_under_muon_the_classifiers_rate_and_decay_are_of_the_rest():
    rest = {"kind": "sgd", "lr": 0.5, "weight_decay": 0.01}
    groups = parameter_groups(CNN(4, 1), **SGD, classifier_lr_factor=4, classifier_weight_decay=0.02, rest=rest)
    seen = {group["name"]: (group["lr"], group["weight_decay"], group["use_muon"]) for group in groups}
    assert seen == {
        "blocks 1-3, muon": (0.01, 5e-4, True), "blocks 1-3, sgd": (0.5, 0.01, False),
        "classifier, sgd": (2.0, 0.02, False),
    }  # fmt: skip


def test_a_first_block_with_epochs_of_its_own_is_the_last_group_and_told():
    model = build("cnn")
    groups = parameter_groups(model, **SGD, first_block_epochs=2.5)
    assert [(group["name"], group.get("epochs")) for group in groups] == [
        ("blocks 2-3", None), ("classifier", None), ("block 1", 2.5),
    ]  # fmt: skip
    assert all(name.startswith("stages.0.") for name in names_of(model, groups[-1]))
    assert describe(groups)[-1].startswith("block 1 (lr 0.01, weight decay 0.0005, for 2.5 epochs): ")
    with pytest.raises(ValueError, match="first_block_epochs=2: MLP has no block before its classifier; leave it null"):
        parameter_groups(MLP(4, 1, 8, hidden=()), **SGD, first_block_epochs=2)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"lr_factors": [0.1] * 4},
         r"lr_factors=\[0.1, 0.1, 0.1, 0.1\]: CNN has 3 blocks before its classifier; give at most 3"),
        ({"lr_factors": []}, r"lr_factors=\[\]: give one factor"),
        ({"lr_factors": [0.5, -1.0]}, r"lr_factors=\[0.5, -1.0\]: must be 0 or more"),
        ({"lr_factors": [float("nan")]}, r"lr_factors=\[nan\]: must be 0 or more"),
        ({"classifier_lr_factor": -0.5}, "classifier_lr_factor=-0.5: must be 0 or more"),
        ({"classifier_weight_decay": 0.1, "weight_decay": None},
         "classifier_weight_decay=0.1: the optimizer has no weight decay; leave it null"),
        ({"lr_factors": [0.0]}, r"lr_factors=\[0.0\]: CNN has no parameter that is trained"),
    ],
)  # fmt: skip
def test_factors_that_do_not_fit_are_refused(options, line):
    with pytest.raises(ValueError, match=line):
        parameter_groups(CNN(4, 1), **(SGD | options))


def test_a_model_with_nothing_to_split_or_to_train_is_refused():
    with pytest.raises(ValueError, match="MLP has 0 blocks before its classifier; leave it null"):
        parameter_groups(MLP(4, 1, 8, hidden=()), **SGD, lr_factors=[1.0])
    with pytest.raises(ValueError, match="CNN has no parameter that is trained"):
        parameter_groups(CNN(4, 1).requires_grad_(False), **SGD)


def test_sgd_moves_each_parameter_by_its_factor():
    """Along one gradient, as the model's own would differ once its parameters do."""
    plain = CNN(4, 1, widths=(4, 4, 4))
    own = copy.deepcopy(plain)
    start = {name: p.detach().clone() for name, p in plain.named_parameters()}
    groups = parameter_groups(own, lr=0.1, weight_decay=0.0, lr_factors=QUARTERS)
    for model, its in ((plain, plain.parameters()), (own, groups)):
        optimizer = torch.optim.SGD(its, lr=0.1, momentum=0.9)
        for step in range(2):
            for i, p in enumerate(model.parameters()):
                p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(100 * step + i))
            optimizer.step()
    moved = dict(plain.named_parameters())
    for name, p in own.named_parameters():
        factor = {"stages.0": 0.25, "stages.1": 0.5}.get(name[:8], 1.0)
        torch.testing.assert_close(p - start[name], factor * (moved[name] - start[name]))
        assert (p - start[name]).abs().max() > 0.01


def test_frozen_modules_are_those_that_keep_a_frozen_batchnorms_statistics():
    model = CNN(4, 1, widths=(4, 4))
    assert frozen_modules(model) == []
    parameter_groups(model, **SGD, lr_factors=[0.0, 1.0])
    frozen = frozen_modules(model.train())
    assert frozen == [model.stages[0][i] for i in (0, 1, 3, 4)]
    for module in frozen:
        module.eval()
    model(torch.randn(8, 1, 8, 8))
    assert not model.stages[0][1].running_mean.any()
    assert model.stages[1][1].running_mean.any()


def test_a_model_with_frozen_tokens_is_no_frozen_module_itself():
    model = build("vit_tiny_patch16_224")
    parameter_groups(model, **SGD, lr_factors=[0.0], classifier_lr_factor=1.0)
    frozen = frozen_modules(model)
    assert not model.cls_token.requires_grad
    assert model not in frozen
    assert {model.patch_embed.proj, model.norm} <= set(frozen)
    assert model.head not in frozen


def test_a_group_is_described_in_a_line():
    groups = parameter_groups(CNN(4, 1), **SGD, lr_factors=[0.25, 1.0], no_decay_on_norm_and_bias=True)
    assert describe(groups)[:2] == [
        "blocks 1-2 (lr 0.0025, weight decay 0.0005): 4 tensors, 64,800 parameters",
        "blocks 1-2, no decay (lr 0.0025, weight decay 0): 8 tensors, 384 parameters",
    ]
    assert describe(groups)[-1].startswith("classifier, no decay (lr 0.01, weight decay 0): 1 tensor, 4 ")
    (line,) = describe(parameter_groups(nn.Linear(2, 3), lr=0.1, weight_decay=None))
    assert line == "all (lr 0.1): 2 tensors, 9 parameters"


@pytest.mark.parametrize(
    ("option", "names"),
    [
        ("default", ["all"]),
        ("no_decay", ["all", "all, no decay"]),
        ("discriminative", ["block 1", "block 2", "block 3", "classifier"]),
        ("linear_probe", ["classifier"]),
    ],
)
def test_an_option_of_the_configuration_gives_its_groups(option, names):
    with initialize_config_dir(str(ROOT / "conf")):
        node = OmegaConf.to_container(compose(f"optimizer_groups/{option}").optimizer_groups)
    assert node.pop("_target_") == "iolaus.settings.OptimizerGroups"
    assert node.keys() == {field.name for field in dataclasses.fields(OptimizerGroups)}
    groups = parameter_groups(CNN(4, 1), **SGD, **node)
    assert [group["name"] for group in groups] == names


@pytest.mark.parametrize("layers", [(0,), (0, 3)], ids=["the first", "both"])
def test_statistics_without_parameters_are_frozen_with_the_layer_before_them(layers):
    def block(n):
        return [nn.Conv2d(n, 4, 3), nn.BatchNorm2d(4, affine=False), nn.ReLU()]

    model = nn.Sequential(*block(1), *block(4), nn.Flatten(), nn.Linear(16, 2))
    for layer in layers:
        model[layer].requires_grad_(False)
    assert frozen_modules(model) == [model[i] for layer in layers for i in (layer, layer + 1)]


def test_no_decay_spares_what_a_timm_model_names_itself():
    import timm

    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, depth=1)
    groups = parameter_groups(model, lr=0.1, weight_decay=0.1, no_decay_on_norm_and_bias=True)
    names = {id(p): name for name, p in model.named_parameters()}
    without = {names[id(p)] for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    assert {"pos_embed", "cls_token"} <= without
    assert "blocks.0.attn.qkv.weight" not in without
