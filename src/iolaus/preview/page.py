"""What `iolaus show` prints and writes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from iolaus.config.build import Parts
from iolaus.config.build_data import read_inputs
from iolaus.files.run_folder import RunFolder
from iolaus.preview.data_facts import count_classes, describe_sizes
from iolaus.preview.layers import Layer, list_layers
from iolaus.preview.memory import Memory, estimate_memory
from iolaus.preview.pictures import draw_range, draw_rates
from iolaus.preview.rates import find_range, planned_rates
from iolaus.results import model_name
from iolaus.show.batch import batch_picture, save_picture
from iolaus.show.tables import clean_text, new_table, print_line, print_table

if TYPE_CHECKING:
    from rich.console import Console

MOST_CLASSES = 24  # rows; of more the rarest and the most frequent are shown
MEASURED_IMAGES = 8  # at most, for the estimate of memory
MIB = 2**20


def show_parts(parts: Parts, folder: RunFolder) -> None:
    """Print data, model, memory and schedule; write batch.png and learning_rate.png."""
    from rich.console import Console

    console, data, learner = Console(), parts.data, parts.learner
    settings = learner.settings
    print_line(console, f"data: {data.description}")
    print_line(console, f"sizes of the training images: {describe_sizes(read_inputs(parts.config).source)}")
    show_classes(console, data.classes, count_classes(data))

    batch_size = min(settings.batch_size, len(data.train))
    images, targets = next(iter(data.train.batches(batch_size, epoch=0, train=True)))
    save_picture(
        batch_picture(images, targets, data.classes, data.train.settings.statistics), folder.path / "batch.png"
    )

    shape = f"{data.shape.channels}x{data.shape.size}x{data.shape.size}"
    where = f"{learner.precision} on {learner.device}"
    print_line(
        console,
        f"\nmodel: {model_name(parts)}, {where}; for one image of {shape}:",
    )
    show_layers(console, list_layers(learner.model, data.shape.channels, data.shape.size))
    draw_rates(planned_rates(learner, len(data.train)), settings.epochs, folder.path / "learning_rate.png")
    few = min(MEASURED_IMAGES, len(images)) // 2 * 2
    if few >= 4:
        largest = min(settings.micro_batch_size or batch_size, batch_size)
        show_memory(console, estimate_memory(learner, images[:few], targets[:few], largest), largest)
    for name in ("batch.png", "learning_rate.png"):
        print_line(console, f"{folder}/{name}")


def show_range(parts: Parts, folder: RunFolder, steps: int) -> None:
    """Do a learning-rate range test, draw it, and print the suggestion."""
    from rich.console import Console

    console = Console()
    test = find_range(parts.learner, parts.data.train, steps)
    draw_range(test, folder.path / "lr_range.png")
    print_line(
        console, f"the loss is lowest at a rate of {test.lowest:.2g}, after {len(test.rates)} steps of rising rates"
    )
    print_line(
        console, f"suggestion: optimizer.lr={test.suggestion:g}, a tenth of that; try 3 times as much and a third, too"
    )
    print_line(console, f"{folder}/lr_range.png")


def show_classes(console: "Console", classes: Sequence[str], counts: dict[str, list[int]]) -> None:
    """Print the number of images of each class in each split, and how much more frequent the most frequent class is."""
    train = counts["train"]
    places = list(range(len(classes)))
    if len(places) > MOST_CLASSES:
        ordered = sorted(places, key=lambda place: -train[place])
        places = [*ordered[: MOST_CLASSES // 2], *ordered[-(MOST_CLASSES // 2) :]]
    table = new_table(console)
    table.add_column("class")
    for name in counts:
        table.add_column(name, justify="right")
    for place in places:
        table.add_row(
            clean_text(classes[place]).replace("[", r"\["), *(f"{split[place]:,}" for split in counts.values())
        )
    print_table(console, table)
    if len(places) < len(classes):
        print_line(console, f"the {MOST_CLASSES // 2} most frequent and rarest of {len(classes)} classes")
    rarest, most = min(train), max(train)
    if rarest and most >= 3 * rarest:
        print_line(
            console,
            f"the most frequent class has {most / rarest:.0f} times the images of the rarest: see "
            "loss.class_weights and dataset.sampler",
        )


def show_layers(console: "Console", layers: Sequence[Layer]) -> None:
    """Print a row for each layer, the whole model last."""
    table = new_table(console)
    table.add_column("layer")
    table.add_column("type")
    for head in ("output", "parameters", "MACs", "activations"):
        table.add_column(head, justify="right")
    whole, *modules = layers
    for layer in [*modules, whole]:
        shape = "x".join(map(str, layer.shape)) if layer.shape else ""
        frozen = " frozen" if layer.parameters and not layer.trained else ""
        row = (
            f"{layer.parameters:,}{frozen}" if layer.parameters else "",
            shorten_count(layer.macs),
            shorten_count(layer.activations),
        )
        table.add_row(layer.name or "all", layer.kind, shape, *row)
    print_table(console, table)
    if whole.macs is None:
        print_line(console, "MACs and activations can't be counted for this model")


def shorten_count(number: int | None) -> str:
    """`1.81 G`, `2.48 M`, `37.2 k`; nothing for 0 or what is not known."""
    for limit, unit in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if number and number >= limit:
            return f"{number / limit:.3g}{unit}"
    return str(number or "")


def show_memory(console: "Console", memory: Memory, batch_size: int) -> None:
    """Print the estimate, in MiB."""
    kinds = {"weights": memory.weights, "gradients": memory.gradients, "optimizer": memory.optimizer}
    kinds |= {"average of the weights": memory.average, f"activations of {batch_size} images": memory.activations}
    words = ", ".join(f"{name} {size / MIB:,.1f}" for name, size in kinds.items() if size)
    print_line(console, f"memory of a training step, without workspaces: {memory.total / MIB:,.0f} MiB ({words})")
