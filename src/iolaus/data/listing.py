"""The pictures in a tree of folders, each folder and each file once, whatever links lead to it."""

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from pathlib import Path

from iolaus.data.ticks import tell_progress
from iolaus.errors import printable
from iolaus.files.atomic import read_json, write_atomically

log = logging.getLogger(__name__)

# The formats that Pillow reads by itself. EPS is not among them: Pillow starts Ghostscript on it.
FORMATS = "JPEG PNG BMP DIB GIF TIFF WEBP AVIF JPEG2000 PPM TGA PCX SGI ICO QOI".split()  # noqa: SIM905  (one line)
SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp",
    ".avif", ".avifs", ".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c", ".pbm", ".pgm", ".ppm", ".pnm",
    ".pfm", ".tga", ".icb", ".vda", ".vst", ".pcx", ".sgi", ".rgb", ".rgba", ".bw", ".ico", ".qoi",
    ".mpo",
})  # fmt: skip
HEIC = (".heic", ".heif")  # of phones, which Pillow does not read
# What archives, file servers and desktops leave beside pictures; hidden names (.DS_Store) don't count either.
JUNK = frozenset({"__macosx", "@eadir", "lost+found", "$recycle.bin", "#recycle", "system volume information"}) | {
    "__pycache__",
    "thumbs.db",
    "desktop.ini",
    "picasa.ini",
    "icon\r",
}
KEPT_FROM = 20_000  # files; a smaller tree is listed in no time
SETTLED_SECONDS = 2.0  # a folder that changed later than this before it was listed may change within the same tick


@dataclass
class Entries:
    """What one folder holds: the names of folders, and of files with their inodes; 0 for a link and where unknown.

    changed: the folder's own time in nanoseconds. Hidden names and junk are not among them.
    """

    changed: int
    folders: list[str] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)


class FolderTree:
    """The folders below `root`, listed once each; a large tree is kept for the next run, by its folders' times.

    left_out: the number of files that are no pictures to Pillow, and of links to what was seen already, by
    (what, where). Walks remember (device, inode): a link back into the tree multiplies nothing.
    """

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.left_out: Counter[tuple[str, str]] = Counter()
        self.walked: set[tuple[int, int]] = set()
        self._listed: dict[str, Entries] = {}
        name = blake2b(os.fsencode(os.path.abspath(root)), digest_size=16).hexdigest()
        self._kept_file = user_cache() / f"{name}.json"
        self._kept = read_json(self._kept_file) if self._kept_file.is_file() else {}
        self._any_new = False

    def entries(self, folder: str) -> Entries:
        """What `folder` holds, sorted by name."""
        if folder not in self._listed:
            changed, kept = os.stat(folder).st_mtime_ns, self._kept.get(folder, {})
            if kept.get("changed") == changed:
                self._listed[folder] = Entries(**kept)
            else:
                self._listed[folder], self._any_new = scan(folder, changed), True
        return self._listed[folder]

    def folders(self, folder: str) -> list[str]:
        """The paths of the folders in `folder`."""
        return [os.path.join(folder, name) for name in self.entries(folder).folders]

    def has_pictures(self, folder: str) -> bool:
        """Whether `folder` itself holds a file that is a picture by its suffix."""
        return any(suffix_of(name) in SUFFIXES for name in self.entries(folder).files)

    def claim(self, folder: str) -> bool:
        """Count `folder` as walked. Returns whether it had not been, under another name."""
        status = os.stat(folder)
        identity = status.st_dev, status.st_ino
        new = identity not in self.walked
        self.walked.add(identity)
        return new

    def pictures(self, folder: str, seen: set[tuple[int, int]]) -> list[str]:
        """The pictures in and below `folder`, sorted by path. seen: (device, inode) of files that are counted."""
        return sorted(tell_progress(self._walk(folder, seen), "files listed"))

    def _walk(self, top: str, seen: set[tuple[int, int]]) -> Iterator[str]:
        pending = [top]
        while pending:
            folder = pending.pop()
            device, start = os.stat(folder).st_dev, os.path.join(folder, "")
            for name, inode in self.entries(folder).files.items():
                suffix, path = suffix_of(name), start + name
                if suffix not in SUFFIXES and (suffix or not is_picture(path)):
                    self.left_out[suffix or "without suffix", top] += 1
                    continue
                identity = (device, inode) if inode else identity_of(path)
                if identity in seen:
                    self.left_out["links to files that are counted", top] += 1
                    continue
                if identity is not None:
                    seen.add(identity)
                yield path
            for path in self.folders(folder):
                if self.claim(path):
                    pending.append(path)
                else:
                    self.left_out["links to folders that are counted", top] += 1

    def keep(self) -> None:
        """Keep a large listing for the next run, all but folders that have just changed."""
        if not self._any_new or sum(len(entries.files) for entries in self._listed.values()) < KEPT_FROM:
            return
        latest = time.time_ns() - int(SETTLED_SECONDS * 1e9)
        settled = {path: vars(entries) for path, entries in self._listed.items() if entries.changed < latest}
        try:
            self._kept_file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._kept_file, lambda file: file.write(json.dumps(settled).encode()))
        except OSError as error:  # a home that can't be written to: the next run lists anew
            log.info("the listing of %s is not kept: %s", printable(self.root), error)

    def describe_left_out(self) -> str | None:
        """`left out: 6 .heic in b/, 2 .txt in a/`, the most first; None if nothing was."""
        if not self.left_out:
            return None
        parts = [
            f"{count:,} {'files ' if what.startswith('without') else ''}{printable(what)} in {self.relative(where)}/"
            for (what, where), count in self.left_out.most_common(6)
        ]
        others = sum(self.left_out.values()) - sum(count for _, count in self.left_out.most_common(6))
        advice = "; convert HEIC to JPEG first" if any(what in HEIC for what, _ in self.left_out) else ""
        return f"left out: {', '.join([*parts, *([f'{others:,} more'] if others else [])])}{advice}"

    def relative(self, path: str) -> str:
        """A path below the root for a message."""
        return printable(os.path.relpath(path, self.root))


def scan(folder: str, changed: int) -> Entries:
    """List a folder; a name that leads nowhere counts as a file, so that it is told when it is read."""
    entries = Entries(changed)
    with os.scandir(folder) as found:
        for entry in sorted(found, key=lambda entry: entry.name):
            if entry.name.startswith(".") or entry.name.lower() in JUNK:
                continue
            if entry.is_dir():
                entries.folders.append(entry.name)
            else:
                entries.files[entry.name] = 0 if entry.is_symlink() else entry.inode()
    return entries


def suffix_of(name: str) -> str:
    """The suffix of a file's name in lower case, with its dot; empty if it has none."""
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""


def identity_of(path: str) -> tuple[int, int] | None:
    """(device, inode) of the file that a path leads to; None if it leads nowhere."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


@cache
def known_formats() -> tuple[str, ...]:
    """FORMATS that this Pillow has: AVIF and QOI are young."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def is_picture(path: str) -> bool:
    """Whether Pillow knows a file by its first bytes."""
    from PIL import Image

    try:
        with Image.open(path, formats=known_formats()):
            return True
    except Exception:  # whatever a plugin raises on a file of another kind
        return False


def user_cache() -> Path:
    """The folder for listings of large trees: of the user, never of a configuration."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iolaus" / "listings"
