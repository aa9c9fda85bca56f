"""How fast photographs are read, beside the usual loaders of torchvision and timm, and beside an older tree of Iolaus.

    python benchmarks/photographs.py --root FOLDER [--before OLDER_TREE] [--repeats 5]

FOLDER holds oxford-iiit-pet/. Its pictures are read as they are (about 430 × 380), and enlarged to 12 megapixels: as
evaluation reads them (224 of 256 pixels) and as training does by RandomResizedCrop at 224. Every way is a process of
its own; all take turns. A measurement is a whole pass over the pictures by reading processes that are there already:
wall time, and CPU time of all its processes. Puts all samples into benchmarks/results.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import report

HERE = Path(__file__).resolve()
SIZE, KEPT, BATCH = 224, 256, 16
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
BIG = (4000, 3000)
TASKS = ("evaluation", "random crop")
Pass = Callable[[], Iterable[Any]]  # gives the batches of one pass over the pictures


def write_pets(root: Path, folder: Path, count: int, big: bool) -> Path:
    """Class folders by breed of `count` pictures, evenly taken: links to them, or enlarged copies."""
    from PIL import Image

    files = sorted((root / "oxford-iiit-pet" / "images").glob("*.jpg"))
    jpegs = [path for path in files if path.read_bytes()[:2] == b"\xff\xd8"]  # a few are of other formats
    for path in jpegs[:: max(1, len(jpegs) // count)][:count]:
        target = folder / path.stem.rpartition("_")[0] / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if big:
            with Image.open(path) as image:
                image.convert("RGB").resize(BIG, Image.Resampling.BICUBIC).save(target, quality=90)
        else:
            target.symlink_to(path.resolve())
    return folder


def torchvision_pass(root: str, task: str, workers: int) -> Pass:
    """ImageFolder and the transforms of torchvision's ImageNet example."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    cut = [transforms.Resize(KEPT), transforms.CenterCrop(SIZE)]
    if task == "random crop":
        cut = [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip()]
    steps = transforms.Compose([*cut, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    loader: Any = DataLoader(
        datasets.ImageFolder(root, steps), BATCH, shuffle=task == "random crop", num_workers=workers,
        persistent_workers=workers > 0,
    )  # fmt: skip
    return lambda: iter(loader)


def timm_pass(root: str, task: str, workers: int) -> Pass:
    """timm's own dataset and loader, with bilinear resizing as the others."""
    from timm.data import ImageDataset, create_loader

    training = task == "random crop"
    loader: Any = create_loader(
        ImageDataset(root), (3, SIZE, SIZE), BATCH, is_training=training, use_prefetcher=False, color_jitter=None,
        interpolation="bilinear", mean=MEAN, std=STD, num_workers=workers,
        crop_pct=SIZE / KEPT, persistent_workers=workers > 0,
    )  # fmt: skip
    return lambda: iter(loader)


def iolaus_pass(root: str, task: str, workers: int, *more: str) -> Pass:
    """The streamed training images of a run, in training or as evaluation reads them."""
    import iolaus

    sys.path.insert(0, str(Path(iolaus.__file__).parents[2] / "benchmarks"))  # of the tree that is measured
    import ours

    parts = ours.iolaus_parts([
        "dataset=image_folder", f"dataset.root={root}", "dataset.residency=streaming", f"dataset.image_size={SIZE}",
        f"dataset.crop_fraction={SIZE / KEPT}", f"dataset.mean={MEAN}", f"dataset.std={STD}", "model=cnn",
        "augmentation.scale=[0.08,1.0]", f"dataset.num_workers={workers}", f"trainer.batch_size={BATCH}",
        "trainer.device=cpu", "trainer.drop_last=false", "dataset.validation=test", "dataset.test_fraction=0.1", *more,
    ])  # fmt: skip
    return lambda: parts.data.train.batches(BATCH, 0, train=task == "random crop")


def exact_pass(root: str, task: str, workers: int) -> Pass:
    return iolaus_pass(root, task, workers, "dataset.resizing=exact")


WAYS = {"Iolaus": iolaus_pass, "Iolaus, exact": exact_pass, "torchvision": torchvision_pass, "timm": timm_pass}
BEFORE = "Iolaus, before"


def cpu_seconds() -> float:
    """CPU time of this process and of those that read for it."""
    import psutil

    me = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (me, *me.children()))


def answer(way: str) -> None:
    """A child: for each line of [root, task, workers] measure one pass, and print [images, wall, CPU] seconds."""
    if way.startswith("Iolaus"):
        from iolaus.machine.process import spin_briefly

        spin_briefly()  # as its commands do, before torch is imported
    passes: dict[str, Pass] = {}
    for line in sys.stdin:
        if line not in passes:
            passes[line] = WAYS[way](*json.loads(line))
            for _ in passes[line]():  # the first pass starts the processes, and warms the files up
                pass
        began, used, images = time.perf_counter(), cpu_seconds(), 0
        for batch in passes[line]():
            images += len(batch[0])
        print(json.dumps([images, time.perf_counter() - began, cpu_seconds() - used]), flush=True)


def start_child(way: str, tree: Path) -> subprocess.Popen[str]:
    paths = os.pathsep.join(
        [str(tree / "src"), str(tree / "benchmarks"), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    command = [sys.executable, "-W", "ignore", str(HERE), "--child", "Iolaus" if way == BEFORE else way]
    return subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            env={**os.environ, "PYTHONPATH": paths})  # fmt: skip


def ask_child(child: subprocess.Popen[str], question: list[Any]) -> tuple[float, float]:
    """(images per second, CPU milliseconds an image)"""
    assert child.stdin
    assert child.stdout
    child.stdin.write(json.dumps(question) + "\n")
    child.stdin.flush()
    images, wall, cpu = json.loads(child.stdout.readline())
    return images / wall, 1000 * cpu / images


def mean_and_std(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    digits = 1 if statistics.mean(values) >= 20 else 2
    return f"{statistics.mean(values):,.{digits}f} ± {deviation:,.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="the folder that holds oxford-iiit-pet/")
    parser.add_argument("--before", type=Path, help="an older tree of Iolaus (git worktree add)")
    parser.add_argument("--images", type=int, nargs=2, default=[256, 48], help="of a pass: as they are, and enlarged")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--output", type=Path, default=report.RESULTS)
    chosen = parser.parse_args()
    if min(chosen.images) < 2 * BATCH:
        parser.error(f"--images: {2 * BATCH} or more each, as training drops a batch that is not full")
    load, samples = report.load_average(), {}
    ways = [*WAYS, *([BEFORE] if chosen.before else [])]
    with tempfile.TemporaryDirectory() as made:
        folders = {
            name: write_pets(chosen.root, Path(made) / ("big" if big else "small"), count, big)
            for name, count, big in zip(("430 × 380", "4000 × 3000"), chosen.images, (False, True), strict=True)
        }
        children = {way: start_child(way, chosen.before if way == BEFORE else HERE.parents[1]) for way in ways}
        try:
            cases = [(name, task, n) for name in folders for task in TASKS for n in chosen.workers]
            for _ in range(chosen.repeats):
                for name, task, workers in cases:
                    for way, child in children.items():
                        measured = ask_child(child, [str(folders[name]), task, workers])
                        samples.setdefault((name, task, workers), {}).setdefault(way, []).append(measured)
        finally:
            for child in children.values():
                child.stdin.close()  # type: ignore[union-attr]
                child.wait(60)
    facts, lines, rows = report.about("cpu", load), [], []
    for (name, task, workers), by_way in samples.items():
        ours = by_way["Iolaus"]
        for way, values in by_way.items():
            speeds, costs = ([value[k] for value in values] for k in range(2))
            to_wall = report.ratio([value[0] for value in ours], speeds)
            to_cpu = report.ratio(costs, [value[1] for value in ours])
            lines.append([f"{name}, {task}, {workers} workers: {way}", mean_and_std(speeds), mean_and_std(costs),
                          f"{to_wall['median']:.2f}", f"{to_cpu['median']:.2f}"])  # fmt: skip
            rows.append({"pictures": name, "task": task, "workers": workers, "way": way, "images_per_second": speeds,
                         "cpu_milliseconds": costs})  # fmt: skip
    title = f"Photographs, {' and '.join(map(str, chosen.images))} a pass, n = {chosen.repeats}"
    print(report.heading(title, facts, chosen.markdown))
    header = ["", "images/s", "CPU ms an image", "Iolaus ÷ it, images/s", "Iolaus ÷ it, CPU"]
    print(report.table(header, lines, chosen.markdown))
    report.write(chosen.output, "photographs", {**facts, "ways": rows})


if __name__ == "__main__":
    try:
        answer(sys.argv[2]) if sys.argv[1:2] == ["--child"] else main()
    except KeyboardInterrupt:
        sys.exit(130)
