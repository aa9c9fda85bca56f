"""Layouts of folders as people have them: each is read as meant, or refused with what was seen."""

import os

import pytest
from pictures import REFUSED, UNDERSTOOD, each, write_picture, write_tree

from iolaus.data import listing
from iolaus.data.image_files import count_copies
from iolaus.data.listing import SUFFIXES, FolderTree, known_formats
from iolaus.data.sources import image_folder


def counts(source):
    return tuple(0 if split is None else len(split.targets) for split in (source.train, source.val, source.test))


def files_of(split):
    return [split.images.name(k) for k in range(len(split.images))]


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_a_layout_is_read_as_it_is_meant_and_says_so(tmp_path, name):
    places, expected, words = UNDERSTOOD[name]
    source = image_folder(str(write_tree(tmp_path / "own", places)), 0.34)
    assert counts(source) == expected
    assert words.replace("20%", "34%") in source.layout
    for split in (source.train, source.val, source.test):
        for path, label in zip(files_of(split), split.targets.tolist(), strict=True) if split else ():
            assert source.classes[label] in path.split(os.sep)


@pytest.mark.parametrize("name", REFUSED)
def test_a_layout_that_makes_no_sense_is_refused_with_what_was_seen(tmp_path, name):
    places, told = REFUSED[name]
    root = write_tree(tmp_path / "own", places)
    with pytest.raises(ValueError) as raised:  # noqa: PT011  (its whole text is compared)
        image_folder(str(root), 0.34)
    assert str(raised.value).startswith(f"root={root}: ")
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_run_says_the_layout_and_what_is_left_out(command, tmp_path):
    write_tree(tmp_path / "own", [*each(["train", "val", "test"]), "train/a/x.heic", "notes", "train/b/__MACOSX"])
    outcome = command("dataset=image_folder", "dataset.root=own", "trainer.epochs=1", "trainer.batch_size=2",
                      "model.widths=[4]", "tracker=none")  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert "data: 6 train, 6 val, 6 test, 2 classes, 3x8x8" in outcome.err
    assert "; train/ val/ test/ folders of 2 classes\n" in outcome.err
    assert "left out: notes/ beside the splits" in outcome.err
    assert "left out: 1 .heic in train/a/" in outcome.err
    assert "7 train" not in outcome.err


# ---- labels in a file ----------------------------------------------------------------------------------------

MAPPINGS = {
    "val/val_annotations.txt": "0.png\tb\t0\t0\t62\t57\n1.png\ta\t1\t1\t9\t9\n2.png\tb\t0\t0\t1\t1\n",
    "LOC_val_solution.csv": "ImageId,PredictionString\n0,b 111 108 429 344\n1,a 1 2 3 4\n2,b 0 0 1 1 b 0 0 2 2\n",
    "val.txt": "0.png 1\n1.png 0\n2.png 1\n",
}


@pytest.mark.parametrize("name", MAPPINGS)
@pytest.mark.parametrize("folder", ["val", "val/images"])
def test_a_flat_val_is_labelled_by_a_mapping_file(tmp_path, name, folder):
    write_tree(tmp_path, [*each(["train", "test"]), folder])
    (tmp_path / name).write_text(MAPPINGS[name])
    source = image_folder(str(tmp_path))
    labels = {os.path.basename(path): label for path, label in
              zip(files_of(source.val), source.val.targets.tolist(), strict=True)}  # fmt: skip
    assert labels == {"0.png": 1, "1.png": 0, "2.png": 1}


def test_a_mapping_that_misses_a_picture_labels_none(tmp_path):
    write_tree(tmp_path, [*each(["train", "test"]), "val"])
    (tmp_path / "val.txt").write_text("0.png a\n1.png b\n")
    source = image_folder(str(tmp_path))
    assert source.val is None
    assert "left out: val/, which holds pictures without labels (no class folders)" in source.notes


# ---- links ---------------------------------------------------------------------------------------------------


def test_a_link_back_into_the_tree_multiplies_and_mislabels_nothing(tmp_path):
    root = write_tree(tmp_path / "own", ["a/deep", "b", "c"])
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "deep" / "sibling").symlink_to(root / "b")
    source = image_folder(str(root), 0.34)
    assert counts(source) == (6, 0, 3)
    for split in (source.train, source.test):
        for path, label in zip(files_of(split), split.targets.tolist(), strict=True):
            assert path.startswith(str(root / source.classes[label]))
    assert "left out: 2 links to folders that are counted in a/" in source.notes


def test_linked_classes_and_linked_files_keep_working(tmp_path):
    pool = write_tree(tmp_path / "pool", ["cats", "dogs"])
    root = tmp_path / "own"
    root.mkdir()
    (root / "cats").symlink_to(pool / "cats")
    (root / "dogs").mkdir()
    for k in range(3):
        (root / "dogs" / f"{k}.png").symlink_to(pool / "dogs" / f"{k}.png")
    assert counts(image_folder(str(root), 0.34)) == (4, 0, 2)


def test_a_file_counts_once_under_any_number_of_names(tmp_path):
    root = write_tree(tmp_path / "own", ["a", "b"])
    for k in range(3):
        os.link(root / "a" / "0.png", root / "a" / f"again{k}.png")
        (root / "b" / f"link{k}.png").symlink_to("0.png")
    source = image_folder(str(root), 0.34)
    assert counts(source) == (4, 0, 2)
    assert any("3 links to files that are counted in a/" in note for note in source.notes)


def test_two_names_of_one_class_folder_are_refused(tmp_path):
    root = write_tree(tmp_path / "own", ["a", "b"])
    (root / "c").symlink_to(root / "a")
    with pytest.raises(ValueError, match="c/: links to other folders of the data"):
        image_folder(str(root))


def test_a_link_that_leads_nowhere_is_a_broken_image_with_its_name(tmp_path):
    root = write_tree(tmp_path / "own", ["a", "b"])
    (root / "a" / "lost.png").symlink_to(tmp_path / "gone.png")
    source = image_folder(str(root), 0.34)
    assert sum(counts(source)) == 7


# ---- one picture in two splits -------------------------------------------------------------------------------


def test_the_same_picture_in_train_and_test_is_told_with_the_count(tmp_path):
    root = write_tree(tmp_path / "own", each(["train", "val", "test"]))
    for k in range(2):
        (root / "test" / "a" / f"copy{k}.png").write_bytes((root / "train" / "b" / f"{k}.png").read_bytes())
    (root / "val" / "a" / "copy.png").write_bytes((root / "train" / "b" / "0.png").read_bytes())
    notes = image_folder(str(root)).notes
    assert "test has 2 pictures of train, byte by byte, as test/a/copy0.png" in notes
    assert "val has 1 picture of train, byte by byte, as val/a/copy.png" in notes


def test_files_of_one_size_are_compared_by_their_bytes(tmp_path):
    ours, others = [], []
    for k in range(5):
        for group, content in ((ours, bytes([k])), (others, bytes([k + 4]))):
            path = tmp_path / f"{len(ours)}{len(others)}.bmp"
            path.write_bytes(content + bytes(10_000))  # they differ far from their ends
            group.append(str(path))
    assert count_copies(ours, others) == (1, ours[4])


# ---- what is listed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".gif", ".jp2", ".webp", ".tga", ".JPG", ""])
def test_what_pillow_reads_is_read_whatever_its_suffix(tmp_path, suffix):
    write_tree(tmp_path, ["b"])
    write_picture(tmp_path / "a" / f"one{suffix}")
    write_picture(tmp_path / "a" / f"two{suffix}", seed=1)
    source = image_folder(str(tmp_path), 0.5)
    assert sum(counts(source)) == 5
    assert source.train.images[0].shape[1] == 3


def test_the_suffixes_are_those_that_pillow_has_for_the_formats():
    from PIL import Image

    known = {suffix for suffix, name in Image.EXTENSION.items() if name in known_formats()}
    assert known <= SUFFIXES
    assert known | {".mpo", ".avif", ".avifs", ".qoi", ".ico"} >= SUFFIXES


def test_numbers_are_ordered_by_value_on_wish(tmp_path):
    root = write_tree(tmp_path, ["10", "9", "1", "class2", "class10"])
    assert image_folder(str(root)).classes == ["1", "10", "9", "class10", "class2"]
    assert image_folder(str(root), class_order="natural").classes == ["1", "9", "10", "class2", "class10"]


# ---- the listing is kept -------------------------------------------------------------------------------------


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """A listing of a few files is kept too, in a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(listing, "KEPT_FROM", 1)
    root = write_tree(tmp_path / "own", each(["train", "test"]))
    for folder, _, _ in os.walk(root):
        os.utime(folder, (1, 1))
    return root


def test_the_next_run_lists_no_folder_again_but_those_that_changed(kept, monkeypatch):
    first = image_folder(str(kept))
    scans = []
    scan = listing.scan
    monkeypatch.setattr(listing, "scan", lambda folder, changed: scans.append(folder) or scan(folder, changed))
    again = image_folder(str(kept))
    assert scans == []
    assert files_of(again.train) == files_of(first.train)
    write_picture(kept / "train" / "a" / "new.png", seed=99)
    assert counts(image_folder(str(kept))) == (7, 0, 6)
    assert scans == [str(kept / "train" / "a")]


def test_a_folder_that_has_just_changed_is_listed_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(listing, "KEPT_FROM", 1)
    tree = FolderTree(write_tree(tmp_path / "own", ["a"]))
    tree.entries(str(tmp_path / "own" / "a"))
    tree.keep()
    assert FolderTree(tmp_path / "own")._kept == {}


@pytest.mark.parametrize("damage", [b"", b"[1]", b'{"x": 3}', b"\xff"])
def test_a_damaged_listing_is_made_anew(kept, tmp_path, damage):
    image_folder(str(kept))
    (file,) = (tmp_path / "cache" / "iolaus" / "listings").iterdir()
    file.write_bytes(damage)
    assert counts(image_folder(str(kept))) == (6, 0, 6)


def test_small_folders_leave_nothing_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    image_folder(str(write_tree(tmp_path / "own", ["a", "b"])))
    assert not (tmp_path / "cache").exists()
