"""`iolaus export RUN --to onnx|pt2|safetensors`: a model for programs that know nothing of Iolaus."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iolaus.command import CommandParser
from iolaus.errors import ConfigError
from iolaus.files.run_folder import RunFolder, make_folder
from iolaus.use.predict import add_run_arguments

if TYPE_CHECKING:
    from torch import Tensor

    from iolaus.use.classifier import Classifier
    from iolaus.use.graph import Graph

    Run = Callable[[Tensor], Tensor]

EXAMPLES = """\
  iolaus export last --to onnx                  model.onnx in the run's folder, compared with torch by onnxruntime
  iolaus export RUN --to onnx --images float    for images of floats in [0, 1] in place of uint8
  iolaus export RUN --to pt2 --out model.pt2    torch.export; read by torch alone
  iolaus export RUN --to safetensors            for timm.create_model("local-dir:...")
"""
USE_ONNX = """\
import onnxruntime
session = onnxruntime.InferenceSession({path!r})
logits = session.run(None, {{"images": images}})[0]  # images: {images}"""
USE_PT2 = """\
import torch
model = torch.export.load({path!r}).module()
logits = model(images)  # images: {images}"""


def export_parser() -> CommandParser:
    """The arguments of `iolaus export`."""
    parser = CommandParser("export", "Write the model of a run for other programs.", EXAMPLES)
    add_run_arguments(parser)
    parser.add_argument("--to", choices=("onnx", "pt2", "safetensors"), required=True)
    parser.add_argument("--images", choices=("uint8", "float"), default="uint8", help="what onnx and pt2 take")
    parser.add_argument("--out", type=Path, metavar="PATH", help="default: model.onnx, model.pt2, timm/ in the run")
    return parser


def main(arguments: Sequence[str]) -> int:
    """The command. Raises ConfigError; what it has written has been compared with the run's own model."""
    given = export_parser().parse_args(arguments)
    from iolaus.use.find import choose_run, read_model
    from iolaus.use.load import load_model

    saved = read_model(choose_run(given.run), given.weights)
    model = load_model(saved, "cpu", "fp32")
    file_name = "timm" if given.to == "safetensors" else f"model.{given.to}"
    out: Path = given.out or saved.folder / file_name
    try:
        make_folder(out.parent)
        if given.to == "safetensors":
            from iolaus.use.safetensors import write_safetensors

            lines = write_safetensors(saved, model, out)
        else:
            lines = write_graph(model, out, given.to, given.images)
    except OSError as error:
        raise ConfigError(f"{out}: can't be written ({error.strerror or error}); --out PATH") from error
    print(RunFolder(out.absolute()), *lines, sep="\n")
    if model.tta != "none":
        print(f"(without the run's test-time augmentation, trainer.tta={model.tta})")
    return 0


def write_graph(model: "Classifier", out: Path, to: str, kind: str) -> list[str]:
    """Write the model and its normalisation as one graph, checked; returns how it is used, and how far it differs."""
    from iolaus.files.atomic import write_atomically
    from iolaus.use.graph import Graph, example_images, largest_difference

    graph = Graph(model, kind).eval()
    size, dtype = model.input.size, "uint8" if kind == "uint8" else "float32 in [0, 1]"
    images = f"(any number, {model.input.channels}, {size}, {size}) {dtype}"
    meta = {"classes": model.classes, "input": {"images": images, "size": size, "channels": model.input.channels}}
    make: Callable[[Graph, Tensor, dict[str, str]], tuple[bytes, Run]] = to_onnx if to == "onnx" else to_pt2
    content, run = make(graph, example_images(model, kind, 2), {key: json.dumps(value) for key, value in meta.items()})
    difference = max(largest_difference(graph, run, example_images(model, kind, count)) for count in (1, 5))
    write_atomically(out, lambda file: file.write(content))
    use = (USE_ONNX if to == "onnx" else USE_PT2).format(path=str(out), images=images)
    checked = f"# {to} against torch: logits differ by at most {difference:.1e}"
    return [checked, *use.splitlines()]


def to_onnx(graph: "Graph", images: "Tensor", meta: dict[str, str]) -> "tuple[bytes, Run]":
    """(an ONNX file, a function of images that runs it by onnxruntime). Raises ConfigError without the extra."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise ConfigError(f"--to onnx: needs {error.name}; pip install 'iolaus[onnx]'") from error
    import torch

    batch = {"images": {0: torch.export.Dim("batch")}}
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
    program = torch.onnx.export(graph, (images,), dynamo=True, dynamic_shapes=batch, verbose=False, **names)
    assert program is not None
    proto = program.model_proto
    for key, value in meta.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    content: bytes = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def to_pt2(graph: "Graph", images: "Tensor", meta: dict[str, str]) -> "tuple[bytes, Run]":
    """(a file of torch.export, a function of images that runs what was read back from it)."""
    import torch

    program = torch.export.export(graph, (images,), dynamic_shapes={"images": {0: torch.export.Dim("batch")}})
    file = io.BytesIO()
    torch.export.save(program, file, extra_files=meta)
    content = file.getvalue()
    return content, torch.export.load(io.BytesIO(content)).module()
