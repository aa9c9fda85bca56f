"""timm's models with the small stem: against torchvision, a written-out network and published counts."""

import logging
import re

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from iolaus.models.timm import build


def count(model):
    return sum(p.numel() for p in model.parameters())


def output_shapes(model, images, *names):
    """Height and width of the outputs of the modules called `names`."""
    shapes = []
    for name in names:
        model.get_submodule(name).register_forward_hook(lambda _m, _i, out: shapes.append(tuple(out.shape[-2:])))
    model(images)
    return shapes


@pytest.mark.parametrize(
    ("name", "num_classes", "expected"),
    [
        ("resnet18", 10, 11_173_962),
        ("resnet18", 100, 11_220_132),
        ("resnetv2_18", 10, 11_172_170),
        # 13 convolutions with biases and BatchNorm, then 512 -> 10
        ("vgg16_bn", 10, 14_714_688 + 2 * 4_224 + 5_130),
    ],
)
def test_parameter_counts_at_32_pixels_are_the_published_ones(name, num_classes, expected):
    assert count(build(name, num_classes)) == expected


def test_resnet18_at_32_pixels_costs_555_million_multiply_adds():
    model, macs = build("resnet18", 10).eval(), []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            # every output value takes as many multiply-adds as a filter has weights
            layer.register_forward_hook(lambda m, _i, out: macs.append(out.numel() * m.weight[0].numel()))
    model(torch.randn(1, 3, 32, 32))
    assert round(sum(macs) / 1e6) == 555


@pytest.mark.parametrize(
    ("name", "first_stage"),
    [
        ("resnet18", "layer1"),
        ("resnest14d", "layer1"),
        ("resnetv2_18", "stages.0"),
        ("resnetv2_50d_gn", "stages.0"),
        ("resnetv2_50x1_bit", "stages.0"),
    ],
)
def test_small_stem_keeps_the_resolution(name, first_stage):
    assert output_shapes(build(name, 10), torch.randn(2, 3, 32, 32), first_stage) == [(32, 32)]


@pytest.mark.parametrize("name", ["resnet18", "resnetv2_18", "vgg16_bn", "resnest14d"])
@pytest.mark.parametrize("settings", [{"image_size": 224}, {"image_size": 32, "stem": "large"}])
def test_large_stem_is_that_of_the_library(name, settings):
    ours = build(name, 10, device="meta", **settings)
    theirs = timm.create_model(name, num_classes=10, device="meta")
    assert str(ours) == str(theirs)
    assert count(ours) == count(theirs)


def test_fresh_stem_is_drawn_as_timm_draws_it():
    std = build("resnet18", 10).conv1.weight.std().item()
    assert std == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.1)  # He et al., fan out


def test_resnet18_equals_torchvisions_with_the_same_stem():
    ours = build("resnet18", 10, drop_rate=0.0)
    theirs = torchvision.models.resnet18(num_classes=10)
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images), theirs(images))


def preact_resnet18(images, weights):
    """PreActResNet18 (He et al., 2016) written out, in training, with a final BatchNorm and ReLU."""

    def bn_relu(x, name):
        return F.batch_norm(x, None, None, weights[f"{name}.weight"], weights[f"{name}.bias"], training=True).relu()

    x = F.conv2d(images, weights["stem.conv.weight"], padding=1)
    for block in (f"stages.{stage}.blocks.{index}" for stage in range(4) for index in range(2)):
        projection = weights.get(f"{block}.downsample.conv.weight")
        stride = 1 if projection is None else 2
        out = bn_relu(x, f"{block}.norm1")
        shortcut = x if projection is None else F.conv2d(out, projection, stride=stride)
        out = F.conv2d(out, weights[f"{block}.conv1.weight"], stride=stride, padding=1)
        out = F.conv2d(bn_relu(out, f"{block}.norm2"), weights[f"{block}.conv2.weight"], padding=1)
        x = out + shortcut
    features = bn_relu(x, "norm").mean((2, 3))
    return F.linear(features, weights["head.fc.weight"].flatten(1), weights["head.fc.bias"])


def test_resnetv2_18_equals_a_written_out_preact_resnet18():
    model, images = build("resnetv2_18", 10), torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(model(images), preact_resnet18(images, model.state_dict()), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "resnetv2_18", "resnest14d"])
def test_grey_images_are_taken(name):
    assert build(name, 10, in_channels=1)(torch.randn(2, 1, 32, 32)).shape == (2, 10)


def test_vit_takes_the_image_size():
    assert build("test_vit", 10, image_size=48)(torch.randn(2, 3, 48, 48)).shape == (2, 10)


@pytest.mark.parametrize(("name", "stem"), [("test_efficientnet", "auto"), ("test_resnet", "large")])
def test_a_stem_that_does_not_fit_is_warned_of_once(name, stem, caplog):
    build(name, 10, image_size=32, stem=stem)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("iolaus.models.timm", logging.WARNING)
    assert f"{name} does not fit 32×32 images: the model reduces them 32-fold" in record.message


@pytest.mark.parametrize(("name", "image_size"), [("test_resnet", 32), ("vgg11", 32), ("test_efficientnet", 224)])
def test_a_stem_that_fits_is_passed_over_in_silence(name, image_size, caplog):
    build(name, 10, image_size=image_size)
    assert caplog.records == []


def test_small_stem_of_a_family_without_one_names_those_that_have_one():
    with pytest.raises(ValueError, match=r"test_efficientnet has no small stem.*: ResNet, ResNetV2, VGG"):
        build("test_efficientnet", 10, stem="small")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "resent18"}, ValueError, "no model 'resent18'; nearest names: resnet18"),
        (
            {"name": "resnet18.a1_in2k"},
            ValueError,
            r"no model 'resnet18.a1_in2k'; nearest names: resnet18\.a1_in1k",
        ),
        ({"name": "???"}, ValueError, "none is near"),
        ({"name": "resnet18", "stem": "tiny"}, ValueError, "auto, small or large, not 'tiny'"),
        ({"name": "resnet18", "drop_rat": 0.1}, TypeError, "unexpected keyword argument 'drop_rat'"),
        ({"name": "resnet18", "drop_rat": None}, ValueError, "drop_rat of timm's resnet18 is null"),
        ({"name": "test_vit4", "pretrained": True}, ValueError, "no pretrained weights for 'test_vit4'"),
    ],
)
def test_mistakes_are_answered_in_one_line(arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        build(num_classes=10, **arguments)
    assert "\n" not in str(caught.value)


def test_pretrained_weights_come_with_the_librarys_stem(tmp_path):
    torch.manual_seed(0)
    source = timm.create_model("test_resnet", num_classes=1000)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    overlay = {"file": str(tmp_path / "weights.pth")}
    model = build("test_resnet", 10, pretrained=True, pretrained_cfg_overlay=overlay)
    assert model.conv1[0].stride == (2, 2)
    assert torch.equal(model.conv1[0].weight, source.conv1[0].weight)
    assert model.fc.out_features == 10


def test_pretrained_weights_that_cannot_be_had_say_what_to_download(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"download huggingface\.co/timm/test_resnet") as caught:
        build("test_resnet", 10, pretrained=True)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_a_network_missing_weights_are_told_at_once(tmp_path, monkeypatch, capfd):
    """The hub's own attempts take a minute and 48 lines. A port that nobody listens at stands for the network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(ValueError, match=r"no network; .*huggingface\.co/timm/test_resnet.*model\.weights=FILE"):
        build("test_resnet", 10, pretrained=True)
    assert capfd.readouterr().err == ""


def test_weights_are_looked_for_in_the_cache_then_over_the_network_or_its_proxy(tmp_path, monkeypatch):
    import socket

    from iolaus.models.hub import answers, has_weights

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    cfg = timm.get_pretrained_cfg("test_resnet")
    assert not has_weights(cfg)
    file = tmp_path / "models--timm--test_resnet.r160_in1k/snapshots/main/model.safetensors"
    file.parent.mkdir(parents=True)
    file.touch()
    assert has_weights(cfg)

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert answers(f"http://127.0.0.1:{port}")
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        assert answers("https://no.such.host.invalid")
    monkeypatch.delenv("https_proxy")
    assert not answers("https://no.such.host.invalid")


# ---- sizes and memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "size"), [("halonet26t", 100), ("xcit_nano_12_p16_224", 100)])
def test_a_family_that_cannot_take_a_size_says_which_sizes_fit(command, name, size):
    outcome = command("dataset=synthetic", "dataset.train_count=40", "dataset.test_count=10", "model=timm",
                      f"model.name={name}", f"model.image_size={size}", "tracker=none")  # fmt: skip
    assert outcome.status == 2
    (line,) = outcome.err.strip().splitlines()
    assert line.startswith("iolaus: model")
    assert f"{size}" in line
    assert "AssertionError" not in line
    sizes = [int(word) for word in re.findall(r"\d+", line.partition("that fit: ")[2])]
    assert sizes
    with torch.device("meta"):
        for fitting in sizes:
            model = build(name, num_classes=2, image_size=fitting)
            assert model(torch.zeros(2, 3, fitting, fitting)).shape == (2, 2)


def test_gradient_checkpointing_gives_the_same_gradients():
    gradients = []
    for checkpoints in (False, True):
        torch.manual_seed(0)
        model = build("resnet18", num_classes=3, grad_checkpointing=checkpoints).eval()
        assert model.grad_checkpointing == checkpoints
        model(torch.ones(2, 3, 32, 32)).sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_a_model_without_gradient_checkpointing_says_so():
    with pytest.raises(ValueError, match="grad_checkpointing=true: timm's vgg11"):
        build("vgg11", num_classes=3, grad_checkpointing=True)
