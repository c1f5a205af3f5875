"""Registration of series: recordings of sensors."""

import io
from collections.abc import Iterator

from perceivers.data.base import require
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.series.modality import (
    SeriesAugmentConfig,
    SeriesModality,
    SeriesPreprocessConfig,
)
from perceivers.data.registry import (
    ColumnKind,
    ModalitySpec,
    OwnDataSize,
    Preprocessing,
    UploadSize,
    register_modality,
)

_BYTES_PER_NUMBER = 8


def _upload_sizes(media: EncodedItem) -> Iterator[UploadSize]:
    data = media.data or b""
    if data[:4] == b"PAR1":
        parquet = require("pyarrow.parquet", "data")
        try:
            metadata = parquet.ParquetFile(io.BytesIO(data)).metadata
        except Exception as error:  # damaged files raise errors of many classes
            raise ValueError(
                f"Cannot read '{media.name}' as a series: it is damaged or cut off ({error})."
            ) from error
        groups = (metadata.row_group(index) for index in range(metadata.num_row_groups))
        size = sum(group.total_byte_size for group in groups)
        yield UploadSize(max(metadata.num_rows * metadata.num_columns, 0), "numbers", "numbers")
        yield UploadSize(size / _BYTES_PER_NUMBER, "numbers", "numbers")
        return
    header = data[: data.find(b"\n") + 1]
    cells = 1 + max(header.count(mark) for mark in (b",", b";", b"\t"))
    yield UploadSize(data.count(b"\n") * cells, "numbers", "numbers")


def _default(_: OwnDataSize) -> tuple[SeriesPreprocessConfig, SeriesAugmentConfig]:
    return SeriesPreprocessConfig(), SeriesAugmentConfig()


register_modality(
    ModalitySpec(
        name="series",
        noun="series",
        preprocessing=(Preprocessing(SeriesPreprocessConfig, SeriesModality, _default),),
        augment=SeriesAugmentConfig,
        suffixes=("csv", "tsv", "parquet"),
        column_kinds={"series": ColumnKind("series", stored_as=("array", "text"))},
        is_media=False,
        recipe="series",
        mixup="blend",
        accepts=("array",),
        upload_sizes=_upload_sizes,
    )
)
