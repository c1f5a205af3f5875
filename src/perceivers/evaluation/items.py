"""What can be given to a predictor, taken apart into samples."""

import glob
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perceivers.data.media import Media, as_media, kind_of_name

__all__ = ["Sample", "samples_of"]

OnError = Callable[[str, Exception], None]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One thing to predict: a medium for each modality, and a name for messages and tables."""

    name: str
    media: dict[str, Media]


def samples_of(
    items: Any, modalities: Sequence[str], *, on_error: OnError | None = None
) -> Iterator[Sample]:
    """Yield the samples in `items`, in order; the files of a folder sorted by path.

    Args:
        items: As in `Predictor.predict`.
        modalities: Names of the model's inputs. With more than one, every sample is a dict.
        on_error: Called with the name and error of an item where there is nothing. By default it is raised.

    Raises:
        FileNotFoundError: If a path does not exist or a glob matches nothing.
        ValueError: If a folder holds no pictures, or an array is not one.
        KeyError: If a dict lacks a modality.
        TypeError: If an item is of another kind.
    """
    several = isinstance(items, Sequence) and not isinstance(items, str | bytes)
    for place, item in enumerate(items if several else [items]):
        name = str(item) if isinstance(item, str | Path) else f"item {place}"
        try:
            yield from _samples(item, name, modalities)
        except (ValueError, OSError) as error:
            if on_error is None:
                raise
            on_error(name, error)


def _samples(item: Any, name: str, modalities: Sequence[str]) -> Iterator[Sample]:
    if isinstance(item, Mapping):
        missing = [modality for modality in modalities if modality not in item]
        if missing:
            msg = f"Expected a dict with {', '.join(modalities)}; '{missing[0]}' is missing in {name}."
            raise KeyError(msg)
        media = {modality: as_media(item[modality], name, Path()) for modality in modalities}
        names = [medium.name for medium in media.values() if medium.path]
        yield Sample(name=" + ".join(names) or name, media=media)
        return
    if len(modalities) > 1:
        msg = f"This model reads {', '.join(modalities)} together: give a dict with one of each."
        raise TypeError(msg)
    if isinstance(item, str | Path):
        for path in _files(item):
            yield Sample(name=str(path), media={modalities[0]: Media(name=str(path), path=path)})
    else:
        yield Sample(name=name, media={modalities[0]: as_media(item, name, Path())})


def _files(item: str | Path) -> list[Path]:
    path = Path(item)
    if path.is_dir():
        files = sorted(
            file
            for file in path.rglob("*")
            if file.is_file() and kind_of_name(file.name) == "image"
        )
        if not files:
            msg = f"Expected pictures in the folder '{path}'; found none."
            raise ValueError(msg)
        return files
    if path.exists():
        return [path]
    matches = sorted(Path(match) for match in glob.glob(str(item), recursive=True))  # noqa: PTH207
    if not matches:
        msg = f"There is no file, folder or match for '{item}'."
        raise FileNotFoundError(msg)
    return matches
