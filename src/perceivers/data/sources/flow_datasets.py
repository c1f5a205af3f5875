"""Frame pairs with optical flow, in the folder layouts of FlyingChairs, Sintel and KITTI."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from perceivers.data.tables.table import ColumnTable, Field

_CHAIRS = re.compile(r"(?P<number>.+)_img1\.(?P<suffix>ppm|png|jpg|jpeg|bmp)", re.IGNORECASE)
_CHAIRS_SPLIT = "FlyingChairs_train_val.txt"
_KITTI_FRAMES, _KITTI_FLOW = ("image_2", "colored_0"), ("flow_occ", "flow_noc")
_SINTEL_PASSES, _SINTEL_FRAME = ("clean", "final"), re.compile(r"(?P<stem>.*?)(?P<number>\d+)")


@dataclass(frozen=True, slots=True)
class FramePairFile:
    """Files of one frame pair.

    Attributes:
        first: First frame.
        second: Second frame.
        flow: Flow. None: unknown, as in test sets.
        scene: Scene of the pair; a scene should not be on both sides of a split.
        split: `train` or `validation`.
    """

    first: Path
    second: Path
    flow: Path | None
    scene: str
    split: str = "train"


def find_flow_layout(folder: Path) -> str | None:
    """Return a description of the layout of a folder, or None."""
    found = _find(folder)
    return None if found is None else found[0]


def list_frame_pairs(folder: Path) -> list[FramePairFile]:
    """Return the pairs of a folder in a known layout, in order, with or without flow; [] for another layout."""
    found = _find(folder)
    pairs = () if found is None else found[1](folder)
    return sorted(pairs, key=lambda pair: (str(pair.first), str(pair.flow)))


def flow_tables(folder: Path) -> tuple[dict[str, ColumnTable], list[str]]:
    """Return the splits of a folder in a known layout, with columns `first`, `second`, `flow` and `scene`; and notes.

    Raises:
        ValueError: If no pair has a flow, or a list of splits does not match the pairs.
    """
    pairs = list_frame_pairs(folder)
    known = [pair for pair in pairs if pair.flow is not None]
    if not known:
        raise ValueError(
            f"The folder '{folder}' holds {len(pairs)} pairs of frames and the flow of none of them, so there is "
            "nothing to learn or measure. Use predict instead."
        )
    notes = [
        f"Left out of {folder} (their flow is not there): {len(pairs) - len(known)} pairs of frames."
    ]

    def path_of(path: Path) -> str:  # Sintel's flow may be outside of the folder
        return str(path.relative_to(folder) if path.is_relative_to(folder) else path.absolute())

    kinds = {"first": "image", "second": "image", "flow": "flow"}
    tables = {
        split: ColumnTable(
            name=str(folder),
            columns={
                **{c: [path_of(getattr(pair, c)) for pair in of_split] for c in kinds},
                "scene": [pair.scene for pair in of_split],
            },
            fields={
                **{column: Field(kind, by_path=True) for column, kind in kinds.items()},
                "scene": Field("string"),
            },
            folder=folder,
        )
        for split in ("train", "validation")
        if (of_split := [pair for pair in known if pair.split == split])
    }
    return tables, notes if len(pairs) > len(known) else []


def _chairs_frames(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    inner = folder / "data" if (folder / "data").is_dir() else folder
    matches = [(path, _CHAIRS.fullmatch(path.name)) for path in _files(inner)]
    return [(path, match) for path, match in matches if match is not None]


def _chairs(folder: Path) -> Iterator[FramePairFile]:
    found: list[FramePairFile] = []
    for path, match in _chairs_frames(folder):
        number = match["number"]
        second = path.with_name(f"{number}_img2.{match['suffix']}")
        flow = path.with_name(f"{number}_flow.flo")
        if second.is_file():
            found.append(FramePairFile(path, second, _existing(flow), number))
    lists = [place / _CHAIRS_SPLIT for place in (folder, folder / "data")]
    listed = next((path for path in lists if path.is_file()), None)
    if listed is None:
        yield from found
        return
    marks = listed.read_text(encoding="ascii", errors="replace").split()
    if len(marks) != len(found) or set(marks) - {"1", "2"}:
        raise ValueError(
            f"'{listed}' must have a line for each of the {len(found)} pairs, 1 for train and 2 for validation; it has "
            f"{len(marks)} lines of {', '.join(sorted(set(marks))[:5])}. Remove it to have a split drawn."
        )
    for pair, mark in zip(found, marks, strict=True):
        yield replace(pair, split="train" if mark == "1" else "validation")


def _sintel(folder: Path) -> Iterator[FramePairFile]:
    for scene, flows in _sintel_scenes(folder):
        frames = {path.stem: path for path in _files(scene) if path.suffix.lower() == ".png"}
        for path in frames.values():
            match = _SINTEL_FRAME.fullmatch(path.stem)
            if match is None:
                continue
            following = f"{match['stem']}{int(match['number']) + 1:0{len(match['number'])}d}"
            if following in frames:
                flow = None if flows is None else _existing(flows / f"{path.stem}.flo")
                yield FramePairFile(path, frames[following], flow, scene.name)


def _sintel_scenes(folder: Path) -> Iterator[tuple[Path, Path | None]]:
    """Yield the folders of frames with their flow folder, for the root, one of its parts, or one pass."""
    for part in (folder / "training", folder / "test", folder, folder.parent):
        passes = [name for name in _SINTEL_PASSES if (part / name).is_dir()]
        if part == folder.parent:
            passes = [folder.name] if folder.name in passes else []
        for name in passes:
            for scene in sorted(path for path in (part / name).iterdir() if path.is_dir()):
                flows = part / "flow" / scene.name
                if flows.is_dir() or (not (part / "flow").exists() and part.name == "test"):
                    yield scene, flows if flows.is_dir() else None


def _kitti(folder: Path) -> Iterator[FramePairFile]:
    for part in (folder / "training", folder / "testing", folder):
        for frames in (part / name for name in _KITTI_FRAMES if (part / name).is_dir()):
            flows = next((part / name for name in _KITTI_FLOW if (part / name).is_dir()), None)
            for first in sorted(frames.glob("*_10.png")):
                second = first.with_name(first.name.replace("_10.png", "_11.png"))
                if second.is_file():
                    flow = None if flows is None else _existing(flows / first.name)
                    yield FramePairFile(first, second, flow, first.name.removesuffix("_10.png"))


# Description, function whose result is not empty in this layout, and the reader.
_LAYOUTS = (
    ("pairs of frames with their flow, as FlyingChairs keeps them", _chairs_frames, _chairs),
    ("frames of videos with their flow, as Sintel keeps them", _sintel_scenes, _sintel),
    ("pairs of frames with their flow, as KITTI keeps them", _kitti, _kitti),
)


def _find(folder: Path) -> tuple[str, Callable[[Path], Iterator[FramePairFile]]] | None:
    for words, probe, read in _LAYOUTS:
        if any(True for _ in probe(folder)):
            return words, read
    return None


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _files(folder: Path) -> Sequence[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
