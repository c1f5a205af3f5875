"""Registration of text."""

from collections.abc import Iterator

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.text.modality import (
    TextAugmentConfig,
    TextModality,
    TextPreprocessConfig,
)
from perceivers.data.registry import (
    ColumnKind,
    ModalitySpec,
    OwnDataSize,
    Preprocessing,
    UploadSize,
    register_modality,
)


def _upload_sizes(media: EncodedItem) -> Iterator[UploadSize]:
    text = media.value if media.data is None else media.data
    size = len(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text or b"")
    yield UploadSize(size, "bytes of text", "characters")


def _default(_: OwnDataSize) -> tuple[TextPreprocessConfig, TextAugmentConfig]:
    return TextPreprocessConfig(keep="random"), TextAugmentConfig()


register_modality(
    ModalitySpec(
        name="text",
        noun="text",
        preprocessing=(Preprocessing(TextPreprocessConfig, TextModality, _default),),
        augment=TextAugmentConfig,
        suffixes=("txt", "md"),
        column_kinds={"text": ColumnKind("text", stored_as=("series",))},
        is_media=False,
        recipe="text",
        upload_sizes=_upload_sizes,
    )
)
