"""Frame pairs with optical flow, in the folder layouts of FlyingChairs, Sintel and KITTI."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from perceivers.data.tables.table import ColumnTable, Field

_CHAIRS = re.compile(r"(?P<number>.+)_img1\.(?P<suffix>ppm|png|jpg|jpeg|bmp)", re.IGNORECASE)
_CHAIRS_SPLIT = "FlyingChairs_train_val.txt"
_KITTI_FRAMES, _KITTI_FLOW = ("image_2", "colored_0"), ("flow_occ", "flow_noc")
_SINTEL_PASSES, _SINTEL_FRAME = ("clean", "final"), re.compile(r"(?P<stem>.*?)(?P<number>\d+)")
_WORDS = {
    "chairs": "pairs of frames with their flow, as FlyingChairs keeps them",
    "sintel": "frames of videos with their flow, as Sintel keeps them",
    "kitti": "pairs of frames with their flow, as KITTI keeps them",
}


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
    for name, (look, _) in _LAYOUTS.items():
        if look(folder):
            return _WORDS[name]
    return None


def list_frame_pairs(folder: Path) -> list[FramePairFile]:
    """Return the pairs of a folder in a known layout, in order, with or without flow; [] for another layout."""
    for look, read in _LAYOUTS.values():
        if look(folder):
            return sorted(read(folder), key=lambda pair: (str(pair.first), str(pair.flow)))
    return []


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
    columns = {"first": "image", "second": "image", "flow": "flow"}
    tables = {
        split: ColumnTable(
            name=str(folder),
            columns={
                **{
                    name: [_path(getattr(pair, name), folder) for pair in of_split]
                    for name in columns
                },
                "scene": [pair.scene for pair in of_split],
            },
            fields={
                **{name: Field(kind, by_path=True) for name, kind in columns.items()},
                "scene": Field("string"),
            },
            folder=folder,
        )
        for split in ("train", "validation")
        if (of_split := [pair for pair in known if pair.split == split])
    }
    return tables, notes if len(pairs) > len(known) else []


def _path(path: Path, folder: Path) -> str:
    """Return a path relative to a folder; outside of it (Sintel's flow beside a single pass) an absolute one."""
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path.absolute())


def _is_chairs(folder: Path) -> bool:
    return any(_CHAIRS.fullmatch(path.name) for path in _files(_chairs_folder(folder)))


def _chairs(folder: Path) -> Iterator[FramePairFile]:
    inner = _chairs_folder(folder)
    found: list[FramePairFile] = []
    for path in _files(inner):
        match = _CHAIRS.fullmatch(path.name)
        if match is None:
            continue
        number = match["number"]
        second = path.with_name(f"{number}_img2.{match['suffix']}")
        flow = path.with_name(f"{number}_flow.flo")
        if second.is_file():
            found.append(FramePairFile(path, second, flow if flow.is_file() else None, number))
    lists = [place / _CHAIRS_SPLIT for place in (folder, inner)]
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


def _chairs_folder(folder: Path) -> Path:
    return folder / "data" if (folder / "data").is_dir() else folder


def _is_sintel(folder: Path) -> bool:
    return any(True for _ in _sintel_scenes(folder))


def _sintel(folder: Path) -> Iterator[FramePairFile]:
    for scene, flows in _sintel_scenes(folder):
        frames = {path.stem: path for path in _files(scene) if path.suffix.lower() == ".png"}
        for path in frames.values():
            match = _SINTEL_FRAME.fullmatch(path.stem)
            if match is None:
                continue
            following = f"{match['stem']}{int(match['number']) + 1:0{len(match['number'])}d}"
            flow = None if flows is None else flows / f"{path.stem}.flo"
            if following in frames:
                is_there = flow is not None and flow.is_file()
                second = frames[following]
                yield FramePairFile(path, second, flow if is_there else None, scene.name)


def _sintel_scenes(folder: Path) -> Iterator[tuple[Path, Path | None]]:
    """Yield the folders of frames with their flow folder, for the root, one of its parts, or one pass."""
    for part in (folder / "training", folder / "test", folder, folder.parent):
        passes = [name for name in _SINTEL_PASSES if (part / name).is_dir()]
        if part == folder.parent:
            passes = [folder.name] if folder.name in passes else []
        for name in passes:
            for scene in _folders(part / name):
                flows = part / "flow" / scene.name
                if flows.is_dir() or (not (part / "flow").exists() and part.name == "test"):
                    yield scene, flows if flows.is_dir() else None


def _is_kitti(folder: Path) -> bool:
    return any(True for _ in _kitti(folder))


def _kitti(folder: Path) -> Iterator[FramePairFile]:
    for part in (folder / "training", folder / "testing", folder):
        for frames in (part / name for name in _KITTI_FRAMES if (part / name).is_dir()):
            flows = next((part / name for name in _KITTI_FLOW if (part / name).is_dir()), None)
            for first in sorted(frames.glob("*_10.png")):
                second = first.with_name(first.name.replace("_10.png", "_11.png"))
                flow = None if flows is None else flows / first.name
                if second.is_file():
                    is_there = flow is not None and flow.is_file()
                    number = first.name.removesuffix("_10.png")
                    yield FramePairFile(first, second, flow if is_there else None, number)


_LAYOUTS = {
    "chairs": (_is_chairs, _chairs),
    "sintel": (_is_sintel, _sintel),
    "kitti": (_is_kitti, _kitti),
}


def _files(folder: Path) -> Sequence[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def _folders(folder: Path) -> Sequence[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())
