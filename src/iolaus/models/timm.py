"""Models of the timm library by name, with the stem that small images need."""

import difflib
import logging
from collections.abc import Callable
from typing import Any

import timm
import torch
from timm.layers.classifier import ClassifierHead
from timm.models import PretrainedCfg
from timm.models.resnet import ResNet
from timm.models.resnetv2 import ResNetV2
from timm.models.vgg import VGG
from torch import nn

from iolaus.models.hub import has_weights

log = logging.getLogger(__name__)

MOST_SIZES = 3  # that a message names
SMALL_IMAGE = 64  # pixels; up to here `stem: auto` takes the small stem


def build(
    name: str,
    num_classes: int,
    in_channels: int = 3,
    image_size: int = 32,
    pretrained: bool = False,
    stem: str = "auto",
    grad_checkpointing: bool = False,
    **kwargs: Any,
) -> nn.Module:
    """Build the timm model `name` for images: (batch, in_channels, image_size, image_size) float.

    ImageNet's stem (a 7×7 convolution of stride 2, then a max-pool) leaves 8×8 of a 32×32 image before the
    first block. The small stem, a 3×3 convolution of stride 1 without a pool, keeps all 32×32 pixels. It is the
    stem of the ResNet paper for CIFAR (He et al., 2015, section 4.2), and of CIFAR versions of these models since.

    Args:
        name: any of `timm.list_models()`, with or without a tag that names its weights (`resnet18.a1_in1k`).
        num_classes: width of the classifier.
        in_channels: channels of the images; timm adapts a pretrained stem if they are not three.
        image_size: height and width of the images, in pixels; models of a fixed size (ViT) are built for it.
        pretrained: load timm's weights, from the cache of the Hugging Face hub or over the network; the
            classifier is initialised unless it has as many classes as the weights. Without a network the cache has
            to hold them.
        stem: `small`, `large` (timm's), or `auto`: small for up to 64 pixels, not pretrained, if the model's
            family has one. With `small` and `pretrained`, a stem of another shape is initialised.
        grad_checkpointing: compute activations again in the backward pass instead of keeping them, block by block:
            less memory, about a third more time, the same numbers.
        kwargs: other arguments of the model in timm (`drop_rate`, `drop_path_rate`, …).

    Raises:
        ValueError: `name` or `stem` is unknown; the family has no small stem and `stem` is `small`; there are
            no pretrained weights, or they can't be found or downloaded; an argument is None; the model can't be made
            for `image_size`, or has no gradient checkpointing.
        TypeError: the model does not take one of `kwargs` (raised by timm).
    """
    known = [*timm.list_models(), *timm.list_pretrained()]
    if name not in known:
        nearest = ", ".join(difflib.get_close_matches(name, known, n=5)) or "none is near; see timm.list_models()"
        raise ValueError(f"timm has no model '{name}'; nearest names: {nearest}")
    if stem not in ("auto", "small", "large"):
        raise ValueError(f"stem must be auto, small or large, not '{stem}'")
    for key, value in kwargs.items():
        if value is None:  # timm ignores it, even if no model has such an argument
            raise ValueError(f"{key} of timm's {name} is null: leave it out to have the library's default")
    if pretrained and not timm.is_model_pretrained(name):
        raise ValueError(f"timm has no pretrained weights for '{name}': set pretrained to false")

    cfg = timm.get_pretrained_cfg(name)
    assert cfg is not None  # every listed name has one
    if cfg.fixed_input_size:
        kwargs = {"img_size": image_size, **kwargs}
    own_weights = kwargs.keys() & {"pretrained_cfg", "pretrained_cfg_overlay"}
    if pretrained and not own_weights and not has_weights(cfg):
        raise ValueError(f"no network; {_explain_missing_weights(name, cfg)}")
    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, in_chans=in_channels, **kwargs)
    except OSError as error:
        if not pretrained:
            raise
        raise ValueError(_explain_missing_weights(name, cfg)) from error
    except AssertionError as error:  # of the size alone: XCiT's, Twins'
        sizes = sizes_that_fit(name, image_size, in_channels, **kwargs)
        raise ValueError(f"{name} can't be made for {image_size}×{image_size} images ({error}); {sizes}") from error
    if grad_checkpointing:
        _checkpoint_gradients(name, model)

    make_small = SMALL_STEMS.get(type(model))
    if stem == "small" and make_small is None:
        raise ValueError(f"{name} has no small stem; the families that have one: {_families()}")
    small_image = image_size <= SMALL_IMAGE
    if make_small and (stem == "small" or (stem == "auto" and small_image and not pretrained)):
        make_small(model)
    elif small_image:
        _warn_if_stem_is_large(name, model, image_size)
    return model


def sizes_that_fit(name: str, image_size: int, in_channels: int = 3, **arguments: Any) -> str:
    """`sizes near it that fit: 96, 128 (model.image_size)`, found without computing; empty if none does.

    arguments: those of `build`. Tried are the size that the model was made for and the multiples of 32 around.
    """
    cfg = timm.get_pretrained_cfg(name)
    assert cfg is not None
    own = {k: v for k, v in arguments.items() if k not in ("pretrained", "stem", "grad_checkpointing", "img_size")}
    near = {32 * (image_size // 32 + k) for k in range(-2, 4)} | {cfg.input_size[-1]}
    fitting = []
    for size in sorted(near - {image_size, 0}, key=lambda size: (abs(size - image_size), size)):
        fixed: dict[str, Any] = {"img_size": size} if cfg.fixed_input_size else {}
        try:
            with torch.device("meta"), torch.no_grad():  # shapes alone
                model = timm.create_model(name, in_chans=in_channels, **fixed, **own).eval()
                model(torch.zeros(2, in_channels, size, size))
        except Exception:
            continue
        fitting.append(size)
        if len(fitting) == MOST_SIZES:
            break
    return f"sizes near it that fit: {', '.join(map(str, sorted(fitting)))} (model.image_size)" if fitting else ""


def _checkpoint_gradients(name: str, model: Any) -> None:
    try:
        model.set_grad_checkpointing(True)
    except (AttributeError, AssertionError) as error:
        raise ValueError(f"grad_checkpointing=true: timm's {name} has no gradient checkpointing") from error


def input_of(name: str, image_size: int) -> dict[str, Any]:
    """The images that a timm model's weights expect, as settings of the dataset: mean, std, interpolation, crop.

    Small images (SMALL_IMAGE) are not cropped.
    """
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None:
        return {}
    interpolation = "bicubic" if cfg.interpolation == "bicubic" else "bilinear"
    crop = {} if image_size <= SMALL_IMAGE else {"crop_fraction": float(cfg.crop_pct)}
    return {"mean": list(cfg.mean), "std": list(cfg.std), "interpolation": interpolation, **crop}


def _conv3x3(conv: nn.Conv2d) -> nn.Conv2d:
    """A 3×3 convolution of stride 1 in place of `conv`, initialised as in timm's ResNets."""
    # of the same class, since some ResNetV2 standardise their weights
    small = type(conv)(conv.in_channels, conv.out_channels, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")
    return small


def _small_resnet_stem(model: Any) -> None:
    if isinstance(model.conv1, nn.Conv2d):
        model.conv1 = _conv3x3(model.conv1)
    else:  # the deep stem of three 3×3 convolutions (ResNeSt, ResNet-D)
        model.conv1[0].stride = (1, 1)
    model.maxpool = nn.Identity()


def _small_resnetv2_stem(model: Any) -> None:
    if hasattr(model.stem, "conv1"):  # the deep stem
        model.stem.conv1.stride = (1, 1)
    else:
        model.stem.conv = _conv3x3(model.stem.conv)
    model.stem.pool = nn.Identity()
    if hasattr(model.stem, "pad"):  # BiT's models pad before the pool
        model.stem.pad = nn.Identity()


def _small_vgg_head(model: Any) -> None:
    # VGG's stem already has stride 1. But its two layers of 4096 on a 7×7 map, with 119 of its 134 million
    # parameters, are made for 224×224: without them the classifier sees the average of the last map.
    model.pre_logits = nn.Identity()
    model.head = ClassifierHead(
        model.num_features,
        model.num_classes,
        pool_type=model.head.global_pool.pool_type,
        drop_rate=model.drop_rate,
    )
    model.head_hidden_size = model.num_features
    nn.init.normal_(model.head.fc.weight, 0, 0.01)
    nn.init.zeros_(model.head.fc.bias)


# timm's class ResNet also builds ResNeXt, ResNeSt, SE-, SK-, ECA- and Res2Net
SMALL_STEMS: dict[type[nn.Module], Callable[[Any], None]] = {
    ResNet: _small_resnet_stem,
    ResNetV2: _small_resnetv2_stem,
    VGG: _small_vgg_head,
}


def _families() -> str:
    return ", ".join(family.__name__ for family in SMALL_STEMS)


def _warn_if_stem_is_large(name: str, model: Any, image_size: int) -> None:
    reduction = model.feature_info[-1]["reduction"]
    last_map = -(-image_size // reduction)
    if last_map < 4:  # the small stems leave 4×4 of 32×32 images
        log.warning(
            f"the stem of {name} does not fit {image_size}×{image_size} images: the model reduces them "
            f"{reduction}-fold, to a last map of {last_map}×{last_map}; larger images (model.image_size) or, "
            f"from scratch, the small stem of {_families()} do better"
        )


def _explain_missing_weights(name: str, cfg: PretrainedCfg) -> str:
    from huggingface_hub import constants

    if cfg.hf_hub_id:
        source, cache = f"huggingface.co/{cfg.hf_hub_id}", constants.HF_HUB_CACHE
    else:
        source, cache = str(cfg.url), f"{torch.hub.get_dir()}/checkpoints"
    return f"no pretrained weights for {name}: download {source} (looked for in {cache}), or give model.weights=FILE"
