"""Models for programs that know nothing of Iolaus, each compared with the run's own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import TINY, command_in, exhaustive

from iolaus.cli import main
from iolaus.use.load import load

pytestmark = pytest.mark.xdist_group("of_one_export")
NOISE = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def trained_models(tmp_path_factory):
    """Runs by name: our CNN, a timm model, and one of timm's with a stem for small images."""
    folder = tmp_path_factory.mktemp("export")
    timm = ("model=timm", "model.name=test_resnet", "dataset.size=64", "model.stem=large")
    small = ("model=timm", "model.name=resnet10t", "model.min_image_size=8", "model.stem=small")
    models = {"cnn": ("model.widths=[4]",), "timm": timm, "small": small}
    with pytest.MonkeyPatch.context() as patch:
        command = command_in(folder, patch)
        for name, arguments in models.items():
            tiny = [a for a in TINY if a.split("=")[0] not in {b.split("=")[0] for b in arguments}]
            assert command(*tiny, *arguments, f"hydra.run.dir=outputs/{name}").status == 0
    return folder / "outputs"


def expected_logits(run, images):
    """The run's logits of uint8 images that have its size already."""
    model = load(run, device="cpu", precision="fp32")
    with torch.no_grad():
        return model.model(model.input.normalise()(images))


@exhaustive
def test_pt2_needs_neither_iolaus_nor_the_batch_size_that_it_was_made_with(trained_models, tmp_path, capsys):
    assert main(["export", str(trained_models / "cnn"), "--to", "pt2", "--out", str(tmp_path / "m.pt2")]) == 0
    torch.save(NOISE, tmp_path / "images.pt")
    code = (
        "import json, sys, torch\n"
        "extra = {'classes': '', 'input': ''}\n"
        "model = torch.export.load('m.pt2', extra_files=extra).module()\n"
        "torch.save(model(torch.load('images.pt')), 'logits.pt')\n"
        "assert json.loads(extra['classes']) == ['0', '1'] and json.loads(extra['input'])['size'] == 8\n"
        "assert not any(name.startswith('iolaus') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    logits = torch.load(tmp_path / "logits.pt")
    assert torch.allclose(logits, expected_logits(trained_models / "cnn", NOISE), atol=1e-5)
    assert "torch.export.load" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_onnx_gives_torchs_logits_for_any_number_of_images(trained_models, tmp_path, kind):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    out = tmp_path / "model.onnx"
    assert main(["export", str(trained_models / "cnn"), "--to", "onnx", "--images", kind, "--out", str(out)]) == 0
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    for count in (1, 3):
        images = NOISE[:count] if kind == "uint8" else NOISE[:count] / 255
        logits = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
        assert torch.allclose(logits, expected_logits(trained_models / "cnn", NOISE[:count]), atol=1e-5)
    meta = session.get_modelmeta().custom_metadata_map
    assert json.loads(meta["classes"]) == ["0", "1"]
    assert json.loads(meta["input"])["size"] == 8


def test_onnx_without_the_extra_is_one_line(trained_models, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", str(trained_models / "cnn"), "--to", "onnx"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "iolaus[onnx]" in line
    assert not (trained_models / "cnn" / "model.onnx").exists()


def test_timm_builds_its_own_model_from_safetensors(trained_models, capsys):
    import timm

    run = trained_models / "timm"
    assert main(["export", str(run), "--to", "safetensors"]) == 0
    model = timm.create_model(f"local-dir:{run / 'timm'}", pretrained=True).eval()
    data = timm.data.resolve_model_data_config(model)
    assert (data["input_size"], list(data["mean"])) == ((3, 64, 64), [0.5] * 3)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(model(images), load(run, device="cpu", precision="fp32").model(images), atol=1e-5)
    assert "local-dir:" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["cnn", "small"])
def test_a_model_that_timm_does_not_build_is_weights_alone_and_says_so(trained_models, name, capsys):
    from safetensors.torch import load_file

    run = trained_models / name
    assert main(["export", str(run), "--to", "safetensors"]) == 0
    assert {path.name for path in (run / "timm").iterdir()} == {"model.safetensors", "iolaus.json"}
    own = load(run, device="cpu").model.state_dict()
    weights = load_file(run / "timm" / "model.safetensors")
    assert weights.keys() == own.keys()
    assert all(torch.equal(value, own[key]) for key, value in weights.items())
    assert json.loads((run / "timm" / "iolaus.json").read_text())["classes"] == ["0", "1"]
    assert "local-dir" not in capsys.readouterr().out


def test_an_exported_model_that_computes_something_else_is_refused():
    from iolaus.errors import RunFailed
    from iolaus.use.graph import largest_difference

    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    with pytest.raises(RunFailed, match="differs"):
        largest_difference(one, other, torch.ones(1, 2))
    assert largest_difference(one, one, torch.ones(1, 2)) == 0


def test_a_folder_that_can_not_be_written_is_one_line(trained_models, capsys):
    blocked = Path(trained_models / "cnn" / "results.json" / "model.pt2")
    assert main(["export", str(trained_models / "cnn"), "--to", "pt2", "--out", str(blocked)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
