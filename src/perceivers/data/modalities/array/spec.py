"""Registration of arrays."""

from perceivers.data.modalities.array.decode import array_upload_sizes
from perceivers.data.modalities.array.modality import (
    ArraysAugmentConfig,
    ArraysPreprocessConfig,
    ArrayValues,
)
from perceivers.data.registry import (
    ColumnKind,
    ModalitySpec,
    OwnDataSize,
    Preprocessing,
    register_modality,
)


def _default(_: OwnDataSize) -> tuple[ArraysPreprocessConfig, ArraysAugmentConfig]:
    return ArraysPreprocessConfig(), ArraysAugmentConfig(noise=0.05)


register_modality(
    ModalitySpec(
        name="array",
        noun="arrays",
        preprocessing=(Preprocessing(ArraysPreprocessConfig, ArrayValues, _default),),
        augment=ArraysAugmentConfig,
        suffixes=("npy", "npz"),
        column_kinds={"array": ColumnKind("arrays", stored_as=("points",))},
        recipe="arrays",
        mixup="share",
        upload_sizes=array_upload_sizes,
    )
)
