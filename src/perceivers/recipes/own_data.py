"""One's own sounds, films, shapes, texts, recordings and arrays: a recipe for each, in three sizes."""

from dataclasses import replace

from perceivers.recipes.common import SIZES
from perceivers.recipes.multimodal import recipe_for
from perceivers.recipes.registry import Recipe, recipe

__all__ = [
    "arrays",
    "audio",
    "audio_raw",
    "audio_video",
    "points",
    "series",
    "text",
    "video",
]


@recipe
def audio(size: str = "tiny") -> Recipe:
    """Your own sounds, as mel spectrograms after a convolved stem.

    Rate, length of a clip and statistics come from the data; longer recordings are cut at random in training.

    Run:      perceivers fit DATA --recipe audio
    Expected: docs/results/audio.md has spoken digits and environmental sounds.
    Source:   Ours, of the papers' parts; SpecAugment (arXiv:1904.08779).
    """
    return recipe_for({"audio": "audio"}, size, name="audio")


@recipe
def audio_raw(size: str = "tiny") -> Recipe:
    """Your own sounds by their samples: no spectrogram, a stem of three strided convolutions.

    Run:      perceivers fit DATA --recipe audio_raw
    Expected: docs/results/audio.md has spoken digits.
    Source:   Ours, of the papers' parts; raw sound as in Perceiver (arXiv:2103.03206), section 4.2.
    """
    return recipe_for({"audio": "wave"}, size, name="audio_raw")


@recipe
def video(size: str = "tiny") -> Recipe:
    """Your own films without their sound: every frame through a convolved stem, 3-D positions.

    Run:      perceivers fit DATA --recipe video
    Expected: docs/results/video.md has three classes of actions.
    Source:   Ours, of the papers' parts; Perceiver (arXiv:2103.03206), section 4.2.
    """
    return recipe_for({"video": "video"}, size, name="video")


@recipe
def audio_video(size: str = "tiny") -> Recipe:
    """Your own films with their sound: the same window of both, fused at the input.

    In training the pictures are left out of some samples (--modality-dropout): else they are learned first and the
    sound hardly, as the paper saw.

    Run:      perceivers fit DATA --recipe audio_video
    Expected: docs/results/audio_video.md has spoken digits, seen, heard and both.
    Source:   Ours, of the papers' parts; fusion and dropout as in Perceiver (arXiv:2103.03206), section 4.2.
    """
    made = recipe_for({"audio": "audio", "video": "video"}, size, name="audio_video")
    return replace(made, fusion=replace(made.fusion, modality_dropout={"video": 0.3}))


@recipe
def points(size: str = "tiny") -> Recipe:
    """Your own shapes: clouds of points, or meshes of whose surface points are drawn.

    Run:      perceivers fit DATA --recipe points
    Expected: docs/results/points.md has ModelNet10.
    Source:   Ours; centring, scaling of single points and unit cube as in Perceiver (arXiv:2103.03206), section 4.3.
    """
    return recipe_for({"points": "points"}, size, name="points")


@recipe
def text(size: str = "tiny") -> Recipe:
    """Your own texts, byte by byte: no tokenizer, any language.

    Run:      perceivers fit DATA --recipe text
    Expected: docs/results/text.md has film reviews.
    Source:   Ours; bytes as in Perceiver IO (arXiv:2107.14795), section 4.1.
    """
    return recipe_for({"text": "text"}, size, name="text")


@recipe
def series(size: str = "tiny") -> Recipe:
    """Your own recordings of sensors: channels over time, with missing values and uneven time stamps.

    Run:      perceivers fit DATA --recipe series
    Expected: docs/results/series.md has activities by a smartwatch.
    Source:   Ours. The papers name wearables as future work.
    """
    return recipe_for({"series": "series"}, size, name="series")


@recipe
def arrays(size: str = "tiny") -> Recipe:
    """Any arrays of M x C, with coordinates or without: a sense that nobody has named yet.

    Without coordinates every element gets a learned position of its own, since nothing is known of their structure.

    Run:      perceivers fit DATA --recipe arrays
    Expected: docs/results/arrays.md has made-up haptic recordings.
    Source:   Ours. A general position encoding is future work in the paper; learned ones are its nearest.
    """
    return recipe_for({"array": "array"}, size, name="arrays")


for _one in (arrays, audio, audio_raw, audio_video, points, series, text, video):
    _one.sizes = tuple(SIZES)  # type: ignore[attr-defined]
