"""Small images of samples, or their texts, as a model reads them."""

from collections.abc import Collection, Iterable
from typing import Any

from PIL import Image

from perceivers.data.sources.samples import Sample, samples_of
from perceivers.explain.attribution.explain import contents_of
from perceivers.explain.attribution.sample import read_sample
from perceivers.hub.checkpoint import Saved

Thumbnail = Image.Image | str


def thumbnail_of(saved: Saved, sample: Sample) -> Thumbnail | None:
    """Return a small image or the text of the first modality of a sample that has one. None: none has.

    Raises:
        ImportError: If it is drawn and matplotlib is missing.
    """
    contents = contents_of(saved, read_sample(saved, sample))
    shown = (content.thumbnail() for content in contents.values())
    return next((one for one in shown if one is not None), None)


def thumbnails(saved: Saved, items: Iterable[Any], names: Collection[str]) -> dict[str, Thumbnail]:
    """Return the thumbnails of the named samples among files, folders and tables, by name.

    Samples that cannot be read have none.
    """
    found: dict[str, Thumbnail] = {}
    columns = saved.config.input_columns()
    for item in items:
        for sample in samples_of(item, columns, on_error=_ignore):
            if sample.name in names and sample.name not in found:
                shown = thumbnail_of(saved, sample)
                if shown is not None:
                    found[sample.name] = shown
            if len(found) == len(names):
                return found
    return found


def _ignore(name: str, error: Exception) -> None:
    """Leave a sample out that cannot be read."""
