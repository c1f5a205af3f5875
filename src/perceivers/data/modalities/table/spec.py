"""Registration of tables: columns of numbers and categories that are one modality together."""

from perceivers.data.modalities.table.modality import (
    TableAugmentConfig,
    TableModality,
    TablePreprocessConfig,
)
from perceivers.data.registry import (
    ColumnKind,
    ModalitySpec,
    OwnDataSize,
    Preprocessing,
    register_modality,
)


def _default(_: OwnDataSize) -> tuple[TablePreprocessConfig, TableAugmentConfig]:
    return TablePreprocessConfig(), TableAugmentConfig(noise=0.05, drop=0.1)


register_modality(
    ModalitySpec(
        name="table",
        noun="numbers and categories",
        preprocessing=(Preprocessing(TablePreprocessConfig, TableModality, _default),),
        augment=TableAugmentConfig,
        column_kinds={
            "number": ColumnKind("numbers"),
            "category": ColumnKind("categories", stored_as=("text", "number")),
        },
    )
)
