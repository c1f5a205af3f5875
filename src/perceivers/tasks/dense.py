"""Dense outputs: a value or class for every pixel of an image (colors, depth, denoising, segmentation)."""

import colorsys
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from einops import rearrange
from PIL import Image
from torch.nn.functional import cross_entropy, pad

from perceivers.tasks.base import PredictionRequest, Task, TaskBatch, split_target, to_float
from perceivers.tasks.config import BaseTaskConfig, OutputPart
from perceivers.tasks.meters import ConfusionMeter, SummedMeter
from perceivers.tasks.prediction import Prediction
from perceivers.tasks.registry import register_task
from perceivers.typing import Bool, Float, Int, Tensor, Tensors

PIXELS = "pixels"
"""Name of the model's output."""

NO_CLASS = 255  # class of pixels that are ignored
_LEAST = 1e-10  # mean squared error below which an image counts as exact: 100 dB
_HUE_STEP = 0.618034  # share of the color wheel from class to class, so that neighbors differ

_TARGET_NAMES = (
    *("target", "targets", "mask", "masks", "label", "labels", "annotation", "annotations"),
    *("segmentation", "classes", "output", "outputs", "truth", "gt"),
)


@dataclass(frozen=True, kw_only=True)
class DenseConfig(BaseTaskConfig):
    """Pixels that are predicted from an image.

    Attributes:
        target: The modality that is learned, an image of the same aspect ratio.
        modality: The input image, whose elements are the queries.
        size: Height and width of both. Taken from the data when 0.
        patch: Height and width of the pixels that a query predicts: those of its element.
        num_train_queries: Queries that are drawn for a step of training. None: all of them.
    """

    target: str = "target"
    modality: str = "image"
    size: tuple[int, int] = (0, 0)
    patch: tuple[int, int] = (1, 1)
    num_train_queries: int | None = None

    def __post_init__(self) -> None:
        if self.num_train_queries is not None and self.num_train_queries < 1:
            raise ValueError(
                f"Expected num_train_queries of at least 1, or None for all, got {self.num_train_queries}."
            )

    @property
    def target_modalities(self) -> tuple[str, ...]:
        """The target image is no input."""
        return (self.target,)

    def bind_modalities(
        self,
        kinds: Mapping[str, str],
        *,
        inputs: Collection[str],
        targets: Collection[str],
        recipe: str,
    ) -> tuple["DenseConfig", dict[str, str]]:
        """Return the configuration for two columns of images.

        The target is the column that `target` names, or one with a usual name (`mask`, `labels`, ...).
        """
        images = [name for name, kind in kinds.items() if kind == "image"]
        if len(kinds) != 2 or len(images) != 2:
            found = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
            raise ValueError(
                f"Recipe {recipe} needs two columns of images, the input and the target, but the data hold {found}. "
                "Name them with --columns A:image,B:image, or keep the images in folders images/ and masks/ (or "
                "targets/) under the same names."
            )
        named = [name for name in images if name.lower() in _TARGET_NAMES]
        if self.target in images:
            named = [self.target]
        if len(named) != 1:
            raise ValueError(
                f"Which of the columns {' and '.join(images)} is the target cannot be determined from their names. "
                f"Name it with --task.target {images[1]}."
            )
        target = named[0]
        modality = next(name for name in images if name != target)
        names = {**dict.fromkeys(targets, target), **dict.fromkeys(inputs, modality)}
        return replace(self, target=target, modality=modality), names

    def fit_to_inputs(self, inputs: Mapping[str, Any], preprocess: Mapping[str, Any]) -> Self:
        """Return the configuration with the size of the images and of the patches."""
        part, target = inputs[self.modality], preprocess[self.target]
        patch = getattr(part, "element_patch", None)
        if patch is None:
            raise ValueError(
                "An output query predicts the pixels of its input element: expected an input of kind pixels, "
                f"patches or residual, got {part.kind}."
            )
        return replace(self, size=getattr(target, "size", None), patch=patch)

    def fit_augment(self, augment: Mapping[str, Any]) -> dict[str, Any]:
        """Return the augmentation with the target cropped and flipped like the image."""
        changes: Any = augment.get(self.modality)
        if changes is None:
            return dict(augment)
        if changes.randaugment is not None or changes.mixup or changes.cutmix:
            raise ValueError(
                "An image and its target are cropped and flipped alike, and nothing else: expected no randaugment, "
                f"mixup and cutmix in augment of '{self.modality}'."
            )
        return {**augment, self.target: changes}

    @property
    def num_values(self) -> int:
        """Values of a pixel: classes or channels."""
        raise NotImplementedError

    def output_parts(self) -> dict[str, OutputPart]:
        """Return one output with the values of all pixels of a query."""
        return {PIXELS: OutputPart(num_outputs=self.num_values * math.prod(self.patch))}


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(DenseConfig):
    """Classes of the pixels of an image. Pixels of class 255 are ignored.

    Attributes:
        label_names: Name of each class, in the order of the indices. Numbers when empty.
    """

    kind: Literal["segmentation"] = "segmentation"
    label_names: tuple[str, ...] = ()

    @property
    def output_names(self) -> tuple[str, ...]:
        """Name of each class."""
        return self.label_names

    @property
    def num_values(self) -> int:
        """Number of classes."""
        return len(self.label_names)

    def fit_to_inputs(self, inputs: Mapping[str, Any], preprocess: Mapping[str, Any]) -> Self:
        """Return the configuration with sizes and the names of the classes."""
        count = getattr(preprocess[self.target], "num_classes", 0)
        names = self.label_names or tuple(map(str, range(count)))
        if len(names) != count:
            raise ValueError(
                f"Expected a name for each of the {count} classes of pixels, got {len(names)}."
            )
        return replace(super().fit_to_inputs(inputs, preprocess), label_names=names)


@dataclass(frozen=True, kw_only=True)
class ImageToImageConfig(DenseConfig):
    """Values of a second image, in [0, 1].

    Attributes:
        num_channels: Channels of the target.
        loss: Absolute or squared error.
    """

    kind: Literal["image_to_image"] = "image_to_image"
    num_channels: int = 3
    loss: Literal["l1", "mse"] = "l1"

    @property
    def num_values(self) -> int:
        """Number of channels."""
        return self.num_channels

    def fit_to_inputs(self, inputs: Mapping[str, Any], preprocess: Mapping[str, Any]) -> Self:
        """Return the configuration with sizes and the number of channels."""
        channels = getattr(preprocess[self.target], "num_channels", 3)
        return replace(super().fit_to_inputs(inputs, preprocess), num_channels=channels)


class _DenseTask(Task):
    """Assignment of pixels to the queries that predict them, and back."""

    config: Any
    answer_fields = ("values", "image")
    optional_answer_fields = ()

    @property
    def num_outputs(self) -> int:
        """Numbers for each query: the values of all of its pixels."""
        return self.config.num_values * math.prod(self.config.patch)

    def prepare_batch(
        self, inputs: Tensors, masks: Tensors, targets: Any, *, training: bool
    ) -> TaskBatch:
        """Return the image and the values of its pixels; in training those of randomly drawn queries."""
        target, inputs, masks = split_target(self.config.target, inputs, masks)
        cells = self.cells(target)
        index: dict[str, Tensor] = {}
        count, drawn = cells.shape[1], self.config.num_train_queries
        if training and drawn is not None and drawn < count:
            chosen = torch.randperm(count, device=cells.device)[:drawn].sort().values
            cells, index = cells[:, chosen], {PIXELS: chosen}
        return TaskBatch(inputs=inputs, masks=masks, targets=cells, index=index)

    def cells(self, target: Tensor) -> Tensor:
        """Return the pixels of each query's patch, in row-major order: B x O x P, or B x O x P x C of values."""
        p, q = self.config.patch
        height, width = target.shape[-2:]
        missing = (0, -width % q, 0, -height % p)
        if target.is_floating_point():
            target = pad(target, missing, value=torch.nan)
            return rearrange(target, "B C (h p) (w q) -> B (h w) (p q) C", p=p, q=q)
        target = pad(target, missing, value=NO_CLASS)
        return rearrange(target, "B (h p) (w q) -> B (h w) (p q)", p=p, q=q)

    def image(self, cells: Float[Tensor, "B O P C"]) -> Float[Tensor, "B C Y X"]:
        """Return the values of all queries as an image: the inverse of `cells`."""
        p, q = self.config.patch
        height, width = self.config.size
        rows = -(-height // p)
        padded = rearrange(cells, "B (h w) (p q) C -> B C (h p) (w q)", h=rows, p=p, q=q)
        return padded[..., :height, :width]

    def check_explainable(self) -> None:
        """Refuse, because a map of attention explains a single output."""
        raise ValueError(
            "This run predicts every pixel, and a map of attention explains a single output. Draw its prediction "
            "instead: perceivers predict RUN FILE --save FOLDER."
        )

    def _pixels(self, outputs: Float[Tensor, "B O K"]) -> Float[Tensor, "B O P C"]:
        return to_float(outputs).unflatten(-1, (math.prod(self.config.patch), -1))


class SegmentationTask(_DenseTask):
    """The class of every pixel.

    Reference: Dense outputs by queries as in Perceiver IO (arXiv:2107.14795), section 4.2; the task is ours.
    """

    main_metric = "mIoU"
    score_name = "accuracy"

    def loss(
        self, outputs: Float[Tensor, "B O K"], targets: Int[Tensor, "B O P"]
    ) -> Float[Tensor, ""]:
        """Return the mean cross-entropy over pixels whose class is known, in nats. Zero if none is."""
        logits = self._pixels(outputs).flatten(0, 2)
        losses = cross_entropy(logits, targets.flatten(), ignore_index=NO_CLASS, reduction="sum")
        return losses / (targets != NO_CLASS).sum().clamp_min(1)

    def probabilities(self, outputs: Float[Tensor, "B O K"]) -> Float[Tensor, "B O P C"]:
        """Return the probability of each class at each pixel of each query."""
        return self._pixels(outputs).softmax(dim=-1)

    def training_score(
        self, outputs: Float[Tensor, "B O K"], targets: Int[Tensor, "B O P"]
    ) -> Float[Tensor, ""]:
        """Return the share of correct pixels, times the samples."""
        known = targets != NO_CLASS
        right = (self._pixels(outputs).argmax(dim=-1) == targets) & known
        return right.sum() / known.sum().clamp_min(1) * outputs.shape[0]

    def meter(self) -> "SegmentationMeter":
        """Return a new meter."""
        return SegmentationMeter(self)

    def predictions(
        self, outputs: Float[Tensor, "B O K"], request: PredictionRequest
    ) -> Iterator[Prediction]:
        """Yield an image of classes with a palette for each sample, and the share of each class.

        Colors are chosen for the classes that the palette of the training data lacks.
        """
        classes = self.image(self.probabilities(outputs)).float().cpu().argmax(dim=1)
        for name, one in zip(request.names, classes, strict=True):
            shares = one.flatten().bincount(minlength=len(self.names)) / one.numel()
            image = self._colored(one, request.preprocess)
            values = dict(zip(self.names, shares.tolist(), strict=True))
            yield Prediction(name=name, values=values, image=image)

    def target_image(
        self, targets: Int[Tensor, "1 O P"], preprocess: Mapping[str, Any]
    ) -> Image.Image:
        """Return the true classes as an image with the colors of the predictions."""
        return self._colored(self.image(targets[..., None].float())[0, 0].cpu(), preprocess)

    def _colored(self, classes: Tensor, preprocess: Mapping[str, Any]) -> Image.Image:
        palette = getattr(preprocess[self.config.target], "palette", ())
        image = Image.fromarray(classes.to(torch.uint8).numpy())
        image.putpalette(_class_colors(len(self.names), palette))
        return image

    def mistake_sizes(
        self, outputs: Float[Tensor, "B O K"], targets: Int[Tensor, "B O P"]
    ) -> Float[Tensor, " B"]:
        """Return the share of wrong pixels of each image."""
        known = targets != NO_CLASS
        wrong = (self._pixels(outputs).argmax(dim=-1) != targets) & known
        return wrong.flatten(1).sum(dim=1) / known.flatten(1).sum(dim=1).clamp_min(1)

    def describe_mistake(
        self, outputs: Float[Tensor, "B O K"], targets: Int[Tensor, "B O P"]
    ) -> str:
        """Return the share of wrong pixels as text."""
        return (
            f"{100 * self.mistake_sizes(outputs, targets)[0].item():.1f} % of the pixels are wrong"
        )


class SegmentationMeter(ConfusionMeter):
    """Confusion matrix of pixels, and the sum of losses."""

    def __init__(self, task: SegmentationTask) -> None:
        # Of each image: correct, true and predicted pixels of each class.
        super().__init__(len(task.names), 2, per_sample=3 * len(task.names))  # nats, images
        self._task = task

    def update(self, outputs: Float[Tensor, "B O K"], targets: Int[Tensor, "B O P"]) -> None:
        """Add one batch: logits, and the true classes of the pixels."""
        known = targets != NO_CLASS
        nats = self._task.loss(outputs, targets).double() * known.sum()
        self.sums += torch.stack([nats.cpu(), torch.tensor(float(outputs.shape[0]))])
        predicted = self._task.probabilities(outputs).argmax(dim=-1)
        self.count(targets[known], predicted[known])
        self.samples.add(_pixels_by_class(targets, predicted, known, len(self._task.names)))

    def compute(self) -> dict[str, float]:
        """Return the metrics; shares lie in [0, 1].

        `mIoU`: the mean intersection over union, over the classes that occur in targets or predictions; `accuracy`:
        share of the pixels that are correct; `mean_recall`: the mean recall over the classes that occur; `loss`: nats
        for each pixel; `samples`: images.
        """
        nats, images = self.sums.tolist()
        counts = self.confusion.double()
        sums = torch.cat([counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)])
        pixels = max(counts.sum().item(), 1.0)
        found = {name: one.item() for name, one in self.resampled(sums[None]).items()}
        return {**found, "loss": nats / pixels, "samples": images}

    def resampled(self, rows: Float[Tensor, "R S"]) -> dict[str, Float[Tensor, " R"]]:
        """Return the metrics of resamples of the images."""
        hits, true, predicted = rows.chunk(3, dim=1)
        return {
            "mIoU": _mean_shares(hits, true + predicted - hits),
            "accuracy": hits.sum(dim=1) / true.sum(dim=1).clamp_min(1),
            "mean_recall": _mean_shares(hits, true),
        }


class ImageToImageTask(_DenseTask):
    """The values of a second image at every pixel.

    Reference: Dense outputs by queries as in Perceiver IO (arXiv:2107.14795), section 4.2; the task is ours.
    """

    main_metric = "psnr"
    score_name = "mae"

    def loss(
        self, outputs: Float[Tensor, "B O K"], targets: Float[Tensor, "B O P C"]
    ) -> Float[Tensor, ""]:
        """Return the mean error over pixels and channels, absolute or squared. Targets outside of the image are NaN."""
        errors = self._errors(outputs, targets)
        errors = errors.abs() if self.config.loss == "l1" else errors.square()
        return errors.sum() / (~targets.isnan()).sum().clamp_min(1)

    def probabilities(self, outputs: Float[Tensor, "B O K"]) -> Float[Tensor, "B O P C"]:
        """Return values in [0, 1]."""
        return self._pixels(outputs).clamp(0.0, 1.0)

    def training_score(
        self, outputs: Float[Tensor, "B O K"], targets: Float[Tensor, "B O P C"]
    ) -> Float[Tensor, ""]:
        """Return the mean absolute error, times the samples."""
        errors = self._errors(outputs, targets).abs().sum()
        return errors / (~targets.isnan()).sum().clamp_min(1) * outputs.shape[0]

    def meter(self) -> "ImageToImageMeter":
        """Return a new meter."""
        return ImageToImageMeter(self)

    def predictions(
        self, outputs: Float[Tensor, "B O K"], request: PredictionRequest
    ) -> Iterator[Prediction]:
        """Yield an image for each sample, and the mean of its values."""
        images = self.image(self.probabilities(outputs)).float().cpu()
        for name, one in zip(request.names, images, strict=True):
            image = _as_image(one)
            yield Prediction(name=name, values={"mean": one.mean().item()}, image=image)

    def _errors(
        self, outputs: Float[Tensor, "B O K"], targets: Float[Tensor, "B O P C"]
    ) -> Float[Tensor, "B O P C"]:
        """Return the error of each value; 0 outside of the image."""
        return torch.where(targets.isnan(), 0.0, self._pixels(outputs) - targets.nan_to_num())

    def target_image(
        self, targets: Float[Tensor, "1 O P C"], preprocess: Mapping[str, Any]
    ) -> Image.Image:
        """Return the true values as an image."""
        return _as_image(self.image(targets)[0].nan_to_num().clamp(0, 1).cpu())

    def mistake_sizes(
        self, outputs: Float[Tensor, "B O K"], targets: Float[Tensor, "B O P C"]
    ) -> Float[Tensor, " B"]:
        """Return the root of the mean squared error of each image."""
        inside = ~targets.isnan()
        errors = torch.where(inside, self.probabilities(outputs) - targets.nan_to_num(), 0.0)
        count = inside.flatten(1).sum(dim=1).clamp_min(1)
        return (errors.square().flatten(1).sum(dim=1) / count).sqrt()

    def describe_mistake(
        self, outputs: Float[Tensor, "B O K"], targets: Float[Tensor, "B O P C"]
    ) -> str:
        """Return the PSNR of one image as text."""
        error = max(self.mistake_sizes(outputs, targets)[0].item() ** 2, _LEAST)
        return f"PSNR {-10 * math.log10(error):.1f} dB"


class ImageToImageMeter(SummedMeter):
    """Sums of errors over images."""

    def __init__(self, task: ImageToImageTask) -> None:
        super().__init__(
            4, per_sample=3
        )  # dB, |error|, loss, images; of an image the first two, and 1
        self._task = task

    def update(self, outputs: Float[Tensor, "B O K"], targets: Float[Tensor, "B O P C"]) -> None:
        """Add one batch: outputs of the queries, and the true values."""
        predicted = self._task.probabilities(outputs)
        inside = ~targets.isnan()
        errors = torch.where(inside, predicted - targets.nan_to_num(), 0.0).double().flatten(1)
        count = inside.flatten(1).sum(dim=1)
        squared = (errors.square().sum(dim=1) / count).clamp_min(_LEAST)
        images = float(outputs.shape[0])
        decibels, absolute = -10 * squared.log10(), errors.abs().sum(dim=1) / count
        sums = [
            decibels.sum().item(),
            absolute.sum().item(),
            self._task.loss(outputs, targets).item() * images,
            images,
        ]
        self.sums += torch.tensor(sums, dtype=torch.float64)
        self.samples.add(torch.stack([decibels, absolute, torch.ones_like(decibels)], dim=1))

    def compute(self) -> dict[str, float]:
        """Return the metrics, means over images.

        `psnr`: peak signal-to-noise ratio in dB, -10 log10 of the mean squared error of values in [0, 1], at most 100;
        `mae`: mean absolute error; `rmse`: root of the mean squared error that the mean `psnr` corresponds to; `loss`;
        `samples`: images.
        """
        decibels, absolute, loss, images = self.sums.tolist()
        count = max(images, 1.0)
        return {
            "psnr": decibels / count,
            "mae": absolute / count,
            "rmse": math.pow(10.0, -decibels / count / 20),
            "loss": loss / count,
            "samples": images,
        }

    def resampled(self, rows: Float[Tensor, "R S"]) -> dict[str, Float[Tensor, " R"]]:
        """Return the metrics of resamples of the images."""
        decibels, absolute, images = rows.unbind(dim=1)
        psnr = decibels / images
        return {"psnr": psnr, "mae": absolute / images, "rmse": 10 ** (-psnr / 20)}


def _as_image(values: Float[Tensor, "C Y X"]) -> Image.Image:
    """Return values in [0, 1] as an image."""
    pixels = values.mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _class_colors(count: int, palette: Sequence[int]) -> list[int]:
    """Return red, green and blue of each class; without a palette, distant colors, and black for class 0."""
    colors = list(palette[: 3 * count])
    for number in range(len(colors) // 3, count):
        rgb = (
            colorsys.hsv_to_rgb(number * _HUE_STEP % 1.0, 0.75, 1.0) if number else (0.0, 0.0, 0.0)
        )
        colors += [round(255 * part) for part in rgb]
    return colors


def _mean_shares(part: Float[Tensor, "R K"], whole: Float[Tensor, "R K"]) -> Float[Tensor, " R"]:
    """Return the mean of the shares whose whole is positive; 0 without any."""
    shares = part / whole.clamp_min(1)
    return shares.sum(dim=1) / (whole > 0).sum(dim=1).clamp_min(1)


def _pixels_by_class(
    targets: Int[Tensor, "B O P"],
    predicted: Int[Tensor, "B O P"],
    known: Bool[Tensor, "B O P"],
    classes: int,
) -> Float[Tensor, "B S"]:
    """Return the number of correct, true and predicted pixels of each class in each image, of the known ones."""
    images = torch.arange(len(targets), device=targets.device)[:, None, None].expand_as(targets)
    found: list[Tensor] = []
    for pixels, counted in (
        (targets, known & (targets == predicted)),
        (targets, known),
        (predicted, known),
    ):
        cells = (images * classes + pixels)[counted]
        counts = cells.cpu().bincount(minlength=len(targets) * classes)
        found.append(counts.view(len(targets), classes))
    return torch.cat(found, dim=1).double()


register_task(SegmentationConfig, SegmentationTask)
register_task(ImageToImageConfig, ImageToImageTask)
