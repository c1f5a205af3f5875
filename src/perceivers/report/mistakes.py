"""The worst mistakes of a run as cards of the HTML report: the sample, its prediction and the truth."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.loading.sampler import LoaderSettings
from perceivers.data.loading.transform import BadRowError, SampleRng, SampleTransform
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.sources.samples import Sample
from perceivers.escaping import escape_html
from perceivers.evaluation.evaluate import as_dict, evaluate_source
from perceivers.evaluation.predict import Predictor
from perceivers.explain.attribution.explain import contents_of
from perceivers.explain.attribution.sample import read_sample
from perceivers.hub.checkpoint import Saved
from perceivers.runs.record import LoadedRun

SHOWN = 8
"""Number of mistakes that are shown of each task by default."""

MOST_ROWS = 2000
"""Number of rows up to which a split is measured for the report, if `perceivers evaluate` has not done it."""


def mistake_cards(
    run: LoadedRun, predictor: Predictor, source: DatasetBundle, split: str, count: int
) -> tuple[dict[str, list[str]], list[str]]:
    """Return cards (HTML) of the worst mistakes on a split by task ("" for a single one), and reasons for missing ones.

    They are those that `perceivers evaluate` saved; otherwise a small split is measured now.
    """
    measured: Mapping[str, Any] | None = run.measured.get(split)
    if measured is None:
        rows = len(source.splits[split])
        if rows > MOST_ROWS:
            return {}, [
                f"The worst mistakes are not shown: the {split} split has {rows:,} rows. Measure it first, with "
                f"`perceivers evaluate {run.folder}`."
            ]
        try:
            measured = as_dict(evaluate_source(predictor, source, split, max_bad=1.0))
        except (OSError, ValueError) as error:
            return {}, [f"The worst mistakes are not shown: {' '.join(str(error).split())}"]
    saved = Saved(model=predictor.model, config=predictor.config, folder=predictor.folder)
    parts = {"": measured, **measured.get("tasks", {})}
    found: dict[str, list[str]] = {}
    missing: list[str] = []
    for task, part in parts.items():
        for mistake in part.get("mistakes", [])[:count]:
            row = mistake["row"]
            if row is None or row >= len(source.splits[split]):
                continue
            try:
                card = _card(saved, predictor, source, split, mistake)
            except (OSError, ValueError, ImportError, BadRowError) as error:
                missing.append(
                    f"A mistake (row {row}) is not shown: {' '.join(str(error).split())}"
                )
                continue
            found.setdefault(task, []).append(card)
    return found, missing


def _card(
    saved: Saved,
    predictor: Predictor,
    source: DatasetBundle,
    split: str,
    mistake: Mapping[str, Any],
) -> str:
    """Return one mistake: its inputs, images of the prediction and the truth if the task has any, and a caption."""
    number = int(mistake["row"])
    row = dict(source.splits[split].row(number))
    name = row_name(row, number)
    contents = contents_of(saved, read_sample(saved, Sample(name=name, row=row)))
    parts: list[str] = []
    for content in contents.values():
        shown = content.thumbnail()
        if isinstance(shown, str):
            parts.append(f"<blockquote>{escape_html(shown)}</blockquote>")
        elif shown is not None:
            parts.append(image_element(shown, name))
    for title, image in _dense_images(predictor, source, split, number).items():
        parts.append(f'<div class="quiet">{title}</div>{image_element(image, title)}')
    text = escape_html(str(mistake["text"])).replace(" %", "&nbsp;%")
    caption = f'<figcaption><b>{text}</b><br><span class="quiet">{escape_html(name)}</span>'
    return f"<figure>{''.join(parts)}{caption}</figcaption></figure>"


def row_name(row: Mapping[str, Any], number: int) -> str:
    """Return the names of the files of a row, or its number."""
    paths = [cell.path for cell in row.values() if isinstance(cell, EncodedItem)]
    files = dict.fromkeys(path.name for path in paths if path is not None)
    return " + ".join(files) or f"Row {number}"


def _dense_images(
    predictor: Predictor, source: DatasetBundle, split: str, number: int
) -> dict[str, Image.Image]:
    """Return the predicted and the true image of a row, of a task that predicts images; else nothing."""
    config = predictor.config
    if not config.target_modalities:
        return {}
    row = dict(source.splits[split].row(number))
    columns = config.input_columns(targets=True)
    settings = LoaderSettings(batch_size=1, target_modalities=config.target_modalities)
    reader = SampleTransform(columns, predictor.preprocess, None, settings)
    sample, _ = reader.sample(row, SampleRng())
    batch = reader.collate([replace(sample, target=None)])
    assert batch is not None  # nothing is mixed
    task = predictor.task
    prepared = task.prepare_batch(batch.inputs, batch.masks, None, training=False)
    with torch.inference_mode():
        true = task.target_image(prepared.targets, config.preprocess)
    if true is None:
        return {}
    (prediction,) = predictor.stream([Sample(name="", row=row)])
    return {"predicted": prediction.image, "in truth": true}


def image_element(image: Image.Image, label: str) -> str:
    """Return an image as an element with a data URL; one of a few pixels is enlarged."""
    shown = image.convert("RGB")
    factor = max(160 // max(shown.size), 1)
    if factor > 1:
        shown = shown.resize(
            (shown.width * factor, shown.height * factor), Image.Resampling.NEAREST
        )
    stream = io.BytesIO()
    shown.save(stream, format="PNG")
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="{escape_html(label)}" src="data:image/png;base64,{data}">'


def cards(figures: Sequence[str]) -> str:
    """Return cards side by side, as many in a row as fit."""
    return f'<div class="cards">{"".join(figures)}</div>' if figures else ""
