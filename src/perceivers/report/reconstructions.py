"""Reconstructions of samples as figures of the HTML report."""

from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.sources.samples import Sample
from perceivers.escaping import escape_html
from perceivers.evaluation.drawings import draw_reconstruction
from perceivers.evaluation.predict import Predictor
from perceivers.report.mistakes import image_element, row_name


def reconstruction_cards(
    predictor: Predictor, source: DatasetBundle, split: str, count: int
) -> tuple[list[str], list[str]]:
    """Return figures (HTML) of samples evenly spaced over a split, and reasons for missing ones.

    Nothing is returned of a run that reconstructs nothing.
    """
    if not predictor.task.reconstructs:
        return [], []
    found: list[str] = []
    missing: list[str] = []
    records = source.splits[split]
    for index in range(0, len(records), max(1, len(records) // count))[:count]:
        row = dict(records.row(index))
        name = row_name(row, index)
        try:
            (prediction,) = predictor.stream([Sample(name=name, row=row)])
            parts: list[str] = []
            for modality, pair in prediction.reconstructions.items():
                shown = draw_reconstruction(pair)
                if isinstance(shown, str):
                    parts.append(f"<pre>{escape_html(shown)}</pre>")
                else:
                    parts.append(image_element(shown, f"{modality} of {name}"))
        except (OSError, ValueError, ImportError) as error:
            missing.append(f"{name} is not shown: {' '.join(str(error).split())}")
            continue
        measured = ", ".join(f"{key} {value:.3g}" for key, value in prediction.values.items())
        caption = f"<figcaption>{escape_html(f'{name}: {measured}')}</figcaption>"
        found.append(
            f'<figure class="reconstruction"><div class="wide" tabindex="0">{"".join(parts)}</div>{caption}</figure>'
        )
    return found, list(dict.fromkeys(missing))
