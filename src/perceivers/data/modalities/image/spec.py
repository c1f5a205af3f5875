"""Registration of images, and of images as targets of every pixel."""

from collections.abc import Iterator

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.image.augment import ImageAugmentConfig
from perceivers.data.modalities.image.decode import read_header
from perceivers.data.modalities.image.modality import ImageModality
from perceivers.data.modalities.image.pixel_targets import (
    ClassMapModality,
    ClassMapPreprocessConfig,
    PixelsModality,
    PixelsPreprocessConfig,
)
from perceivers.data.modalities.image.preprocess import ImagePreprocessConfig
from perceivers.data.registry import (
    ColumnKind,
    ModalitySpec,
    OwnDataSize,
    Preprocessing,
    UploadSize,
    register_modality,
)


def image_upload_sizes(media: EncodedItem) -> Iterator[UploadSize]:
    """Yield the number of pixels that the header of an image states."""
    header = read_header(media)
    yield UploadSize(header.height * header.width, "pixels", "pixels")


def _is_image(data: bytes) -> bool:
    magic = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")
    is_heif = data[4:8] == b"ftyp" and data[8:12] in {b"avif", b"heic"}
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return data.startswith(magic) or is_webp or is_heif


def _default(size: OwnDataSize) -> tuple[ImagePreprocessConfig, ImageAugmentConfig]:
    augment = ImageAugmentConfig(crop_scale=(0.4, 1.0), flip=True)
    return ImagePreprocessConfig(max_side=size.largest_image), augment


register_modality(
    ModalitySpec(
        name="image",
        noun="images",
        preprocessing=(
            Preprocessing(ImagePreprocessConfig, ImageModality, _default),
            Preprocessing(PixelsPreprocessConfig, PixelsModality),
            Preprocessing(ClassMapPreprocessConfig, ClassMapModality),
        ),
        augment=ImageAugmentConfig,
        suffixes=(
            *("jpg", "jpeg", "jpe", "jfif", "png", "gif", "bmp", "dib", "webp", "tif"),
            *("tiff", "ppm", "pgm", "pbm", "pnm", "tga", "ico", "jp2", "avif"),
        ),
        magic=_is_image,
        column_kinds={"image": ColumnKind("images", stored_as=("array",))},
        recipe="images",
        fine_encoder=False,
        mixup="blend",
        upload_sizes=image_upload_sizes,
    )
)
