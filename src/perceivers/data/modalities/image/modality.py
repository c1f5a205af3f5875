"""Images as a modality, and as targets of every pixel: a second image, or a map of classes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.base import (
    SAMPLED_CELLS,
    BasePreprocessConfig,
    CellSampler,
    Comparable,
    DecodedValue,
    MissingValueError,
    read_cells,
)
from perceivers.data.modalities.image.augment import (
    ImageAugmentConfig,
    augment_pixels,
    check_crop,
    inception_box,
    moved,
)
from perceivers.data.modalities.image.class_map import (
    NO_CLASS,
    MapEncoding,
    describe_encoding,
    find_encoding,
    map_values,
    to_indices,
)
from perceivers.data.modalities.image.decode import IMAGE_BRANDS, decode, read_header
from perceivers.data.modalities.image.preprocess import (
    ImagePreprocessConfig,
    Pixels,
    evaluation_box,
    normalize_pixels,
    preprocess_pixels,
)
from perceivers.data.registry import (
    ColumnKind,
    ModalitySpec,
    OwnDataSize,
    Preprocessing,
    UploadSize,
    register_modality,
)
from perceivers.registry import configclass
from perceivers.typing import Bool, Tensor


class ImageModality:
    """Modality of images. See `perceivers.data.modalities.base.Modality`.

    Raises:
        ValueError: If `crop_scale` or `crop_ratio` are out of range, or something in `preprocess` is open.
    """

    has_clips = False

    def __init__(
        self, preprocess: ImagePreprocessConfig, augment: ImageAugmentConfig | None = None
    ) -> None:
        if augment is not None:
            check_crop(augment)
        mean, std = preprocess.mean, preprocess.std
        if preprocess.num_channels is None or mean is None or std is None:
            raise ValueError(
                "Expected num_channels, mean and std of images, got "
                f"{preprocess}: they are taken from the data first."
            )
        self.size, self.num_channels = preprocess.known_size, preprocess.num_channels
        self.mean, self.std = mean, std
        self.preprocess = preprocess
        self.augment = augment

    def decode(self, media: EncodedItem, *, clip_position: float | None = None) -> DecodedValue:  # noqa: ARG002
        """Return an image of Pillow's, mode `L` or `RGB`."""
        if media.is_missing:
            raise MissingValueError(f"{media.name} is empty: expected an image, got nothing.")
        decoded = decode(media, num_channels=self.num_channels)
        return DecodedValue(decoded.image, decoded.notes)

    def transform(
        self,
        value: Image.Image,
        *,
        clip_position: float = 0.5,  # noqa: ARG002
        rng: np.random.Generator | None = None,
    ) -> Pixels:
        """Return the pixels that the model sees, Y x X x C."""
        if self.augment is None or rng is None:
            return preprocess_pixels(value, self.preprocess)
        return augment_pixels(value, self.augment, self.preprocess, rng)

    def collate(self, samples: Sequence[Any]) -> tuple[Tensor, Bool[Tensor, "B 1"] | None]:
        """Return images as B x C x Y x X, normalized; and a mask if some are missing."""
        there = [sample is not None for sample in samples]
        is_float = self.preprocess.resize == "tensorflow"
        dtype = np.float32 if is_float else np.uint8
        nothing = np.zeros((*self.size, self.num_channels), dtype=dtype)
        pixels = np.stack([nothing if sample is None else sample for sample in samples])
        values = normalize_pixels(torch.from_numpy(pixels), self.preprocess)
        if all(there):
            return values, None
        mask = torch.tensor(there)
        return values.masked_fill(~mask[:, None, None, None], 0.0), mask[:, None]


def image_from_pixels(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """Return cached pixels as an image again. Faster than `Image.fromarray`, which matters for small ones."""
    height, width, channels = pixels.shape
    return Image.frombytes("L" if channels == 1 else "RGB", (width, height), pixels.tobytes())


SAMPLED_COLOR_MAPS = 1000
_SLACK = 1.5  # pixels by which the sides of two images of one aspect may differ by rounding


@configclass
class PixelsPreprocessConfig(BasePreprocessConfig):
    """Preprocessing of a second image into values to learn, in [0, 1].

    Attributes:
        size: Height and width in pixels. None: those of the image that it belongs to.
        num_channels: 3 for RGB, 1 for gray. None: taken from the data.
        crop_fraction: Side of the central crop as a share of the shorter side.
        keep_aspect: Crop to the aspect of `size` first.
    """

    kind: Literal["pixels"] = "pixels"
    size: tuple[int, int] | None = None
    num_channels: int | None = None
    crop_fraction: float = 1.0
    keep_aspect: bool = True

    def measure(self, cells: CellSampler) -> Self:
        """Return the configuration with an open number of channels filled in: 1 if all images are gray.

        Raises:
            ValueError: If none of them can be read.
        """
        if self.num_channels is not None:
            return self
        headers = list(read_cells(cells(SAMPLED_CELLS), read_header, "target image"))
        return replace(self, num_channels=1 if all(one.gray for one in headers) else 3)


@configclass
class ClassMapPreprocessConfig(BasePreprocessConfig):
    """Preprocessing of an image of class indices, gray levels or colors into classes to learn.

    Attributes:
        size: Height and width in pixels. None: those of the image that it belongs to.
        num_classes: Classes. None: up to the highest index in the data. 255 is none of them: nobody knows.
        is_binary: 255 is class 1: the maps hold 0 and 255 only, as black and white.
        levels: Gray level of each class, where pixels are no indices: 0 and 128. () where they are.
        colors: Red, green and blue of each class, where the maps are in color.
        tolerance: Largest difference of a pixel from its gray level: 0, or more where levels are blurred (JPEG).
        palette: Red, green and blue of each class, as the data color them; images of predictions take these.
        crop_fraction: Side of the central crop as a share of the shorter side.
        keep_aspect: Crop to the aspect of `size` first.
    """

    kind: Literal["class_map"] = "class_map"
    size: tuple[int, int] | None = None
    num_classes: int | None = None
    is_binary: bool = False
    levels: tuple[int, ...] = ()
    colors: tuple[int, ...] = ()
    tolerance: int = 0
    palette: tuple[int, ...] = ()
    crop_fraction: float = 1.0
    keep_aspect: bool = True

    def __post_init__(self) -> None:
        """Refuse numbers of classes beyond 8-bit indices."""
        if self.num_classes is not None and not 2 <= self.num_classes <= NO_CLASS:
            raise ValueError(
                f"Expected from 2 to {NO_CLASS} classes of pixels, got {self.num_classes}."
            )

    def measure(self, cells: CellSampler) -> Self:
        """Return the configuration with the number of classes and their colors filled in.

        Raises:
            ValueError: If no map can be read, or they hold one class only.
        """
        found = list(read_cells(cells(SAMPLED_CELLS), map_values, "class map"))
        if any(one.is_color for one in found):  # a rare color may be in few maps
            found = list(read_cells(cells(SAMPLED_COLOR_MAPS), map_values, "class map"))
        if self.is_binary or self.levels or self.colors:
            count = 2 if self.is_binary else len(self.levels) or len(self.colors) // 3
            given = (self.is_binary, self.levels, self.colors, self.tolerance)
            encoding = MapEncoding(self.num_classes or count, *given)
        else:
            encoding = find_encoding(found, self.num_classes)
        palettes = (one.palette for one in found if one.palette)
        palette = self.palette or encoding.colors or next(palettes, ())
        return replace(
            self,
            num_classes=encoding.num_classes,
            is_binary=encoding.is_binary,
            levels=encoding.levels,
            colors=encoding.colors,
            tolerance=encoding.tolerance,
            palette=tuple(palette[: 3 * encoding.num_classes]),
        )

    def notes(self) -> tuple[str, ...]:
        """Return a sentence on the encoding of the classes, if pixels are no indices."""
        sentence = describe_encoding(self.levels, self.colors, self.tolerance)
        return (sentence,) if sentence else ()


class PixelsModality(ImageModality):
    """Images as targets. See `perceivers.data.modalities.base.Modality`.

    Raises:
        ValueError: If something is open.
    """

    def __init__(
        self, preprocess: PixelsPreprocessConfig, augment: ImageAugmentConfig | None = None
    ) -> None:
        if preprocess.size is None or preprocess.num_channels is None:
            raise ValueError(
                f"Expected size and num_channels of an image to learn, got {preprocess}."
            )
        count = preprocess.num_channels
        plain = ImagePreprocessConfig(
            size=preprocess.size,
            num_channels=count,
            mean=(0.0,) * count,
            std=(1.0,) * count,
            crop_fraction=preprocess.crop_fraction,
            keep_aspect=preprocess.keep_aspect,
        )
        super().__init__(plain, augment)


class ClassMapModality:
    """Class maps as targets. See `perceivers.data.modalities.base.Modality`.

    Raises:
        ValueError: If something is open, or `crop_scale` or `crop_ratio` are out of range.
    """

    has_clips = False

    def __init__(
        self, preprocess: ClassMapPreprocessConfig, augment: ImageAugmentConfig | None = None
    ) -> None:
        if preprocess.size is None or preprocess.num_classes is None:
            raise ValueError(
                f"Expected size and num_classes of a map of classes, got {preprocess}."
            )
        if augment is not None:
            check_crop(augment)
        self.size = preprocess.size
        self.num_classes = preprocess.num_classes
        self.is_binary = preprocess.is_binary
        self.encoding = (preprocess.levels, preprocess.colors, preprocess.tolerance)
        self.augment = augment
        self._cut = ImagePreprocessConfig(
            size=preprocess.size,
            crop_fraction=preprocess.crop_fraction,
            keep_aspect=preprocess.keep_aspect,
        )

    def decode(self, media: EncodedItem, *, clip_position: float | None = None) -> DecodedValue:  # noqa: ARG002
        """Return the index of each pixel's class, Y x X of uint8."""
        if media.is_missing:
            raise MissingValueError(
                f"{media.name} is empty: expected a map of classes, got nothing."
            )
        indices = to_indices(media, *self.encoding)
        if self.is_binary:
            indices = np.where(indices == NO_CLASS, 1, indices).astype(np.uint8)
        odd = indices[(indices >= self.num_classes) & (indices != NO_CLASS)]
        if odd.size:
            raise ValueError(
                f"{media.name} holds the class {odd[0]}: expected indices below {self.num_classes}, the number of "
                f"classes, or {NO_CLASS} where nobody knows. If there are more, set num_classes in preprocess."
            )
        return DecodedValue(indices)

    def transform(
        self,
        value: npt.NDArray[np.uint8],
        *,
        clip_position: float = 0.5,  # noqa: ARG002
        rng: np.random.Generator | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Return the classes of the pixels that the model sees, Y x X. They are never mixed: the nearest counts."""
        height, width = value.shape
        flip = False
        if self.augment is None or rng is None or self.augment.crop_scale is None:
            box = evaluation_box(width, height, self._cut)
        else:
            box = inception_box(width, height, self.augment, self._cut, rng)
        if self.augment is not None and rng is not None:
            flip = self.augment.flip and rng.random() < 0.5
        image = Image.fromarray(value).resize(
            (self.size[1], self.size[0]), Image.Resampling.NEAREST, box=box
        )
        pixels = np.array(image)
        pixels = pixels[:, ::-1].copy() if flip else pixels
        if self.augment is None or rng is None:
            return pixels
        return cast("npt.NDArray[np.uint8]", moved(pixels, self.augment, self._cut, rng))

    def collate(self, samples: Sequence[Any]) -> tuple[Tensor, Bool[Tensor, "B 1"] | None]:
        """Return maps as B x Y x X of int64; of samples without one, all pixels are of no class."""
        nothing = np.full(self.size, NO_CLASS, dtype=np.uint8)
        maps = np.stack([nothing if sample is None else sample for sample in samples])
        there = torch.tensor([sample is not None for sample in samples])
        values = torch.from_numpy(maps).long()
        return values, None if bool(there.all()) else there[:, None]


def check_alike(values: dict[str, Any], answers: Sequence[str]) -> str | None:
    """Return an error message if a target has another aspect than its image, else None.

    Args:
        values: Decoded value of each modality of a row.
        answers: Names of the targets.
    """
    sizes = {name: _size(value) for name, value in values.items()}
    shown = next(
        ((name, size) for name, size in sizes.items() if size and name not in answers), None
    )
    if shown is None:
        return None
    name, (height, width) = shown
    for answer in answers:
        size = sizes.get(answer)
        if size is None:
            continue
        scale = size[0] / height
        if abs(size[1] - scale * width) > _SLACK * max(1.0, scale):
            return (
                f"expected '{answer}' of the same aspect as '{name}', {height} x {width} pixels, got {size[0]} x "
                f"{size[1]}."
            )
    return None


def _size(value: Any) -> tuple[int, int] | None:
    """Return height and width of an image or a map; None of anything else."""
    if isinstance(value, Image.Image):
        return value.height, value.width
    if isinstance(value, np.ndarray):
        array = cast("npt.NDArray[Any]", value)
        return (int(array.shape[0]), int(array.shape[1])) if array.ndim == 2 else None
    return None


def image_upload_sizes(media: EncodedItem) -> Iterator[UploadSize]:
    """Yield the number of pixels that the header of an image states."""
    header = read_header(media)
    yield UploadSize(header.height * header.width, "pixels", "pixels")


_MAGIC = (
    *(b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\x00", b"MM\x00*", b"\x00\x00\x00\x0cjP  "),
    *(b"\xff\x4f\xff\x51", b"\x00\x00\x01\x00", b"\x0a\x05\x01", b"\x01\xda\x00", b"\x01\xda\x01"),
)


def _is_image(data: bytes) -> bool:
    is_heif = data[4:8] == b"ftyp" and data[8:12] in IMAGE_BRANDS
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    is_bmp = data[:2] == b"BM" and data[6:10] == bytes(4)
    is_ppm = len(data) > 2 and data[:1] == b"P" and data[1] in b"123456" and data[2] in b"\t\n\r #"
    return data.startswith(_MAGIC) or is_webp or is_heif or is_bmp or is_ppm


def describe_image(image: Image.Image) -> Comparable:
    """Return a thumbnail of an image, and its gray values and colors as features.

    Images of less than 16 pixels, many of which are nearly equal, have no thumbnail.
    """
    gray = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BILINEAR))
    colors = np.asarray(image.convert("RGB").resize((8, 8), Image.Resampling.BOX))
    shades = gray.reshape(16, 2, 16, 2).mean(axis=(1, 3))
    features = np.concatenate([shades.ravel(), colors.ravel()]).astype(np.float32)
    return Comparable(
        features=features, is_standardized=False, thumbnail=gray if min(image.size) >= 16 else None
    )


def _default(size: OwnDataSize) -> tuple[ImagePreprocessConfig, ImageAugmentConfig]:
    augment = ImageAugmentConfig(crop_scale=(0.4, 1.0), flip=True)
    return ImagePreprocessConfig(max_side=size.largest_image), augment


# 8 x 8 gray pixels
_GRAY_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000008000000080800000000e164e157000000104944415478da636c6080"
    "0026068a180026080090b5310a910000000049454e44ae426082"
)

register_modality(
    ModalitySpec(
        name="image",
        noun="images",
        example_file=_GRAY_PNG,
        preprocessing=(
            Preprocessing(ImagePreprocessConfig, ImageModality, _default),
            Preprocessing(PixelsPreprocessConfig, PixelsModality),
            Preprocessing(ClassMapPreprocessConfig, ClassMapModality),
        ),
        augment=ImageAugmentConfig,
        suffixes=(
            *(
                "jpg",
                "jpeg",
                "jpe",
                "jfif",
                "mpo",
                "png",
                "apng",
                "gif",
                "bmp",
                "dib",
                "webp",
                "tif",
                "tiff",
            ),
            *(
                "ppm",
                "pgm",
                "pbm",
                "pnm",
                "tga",
                "ico",
                "jp2",
                "j2k",
                "jpf",
                "jpx",
                "avif",
                "heic",
                "heif",
            ),
            *("hif", "pcx", "sgi"),
        ),
        magic=_is_image,
        column_kinds={"image": ColumnKind("images", stored_as=("array",))},
        recipe="images",
        fine_encoder=False,
        mixup="blend",
        upload_sizes=image_upload_sizes,
        describe=describe_image,
    )
)
