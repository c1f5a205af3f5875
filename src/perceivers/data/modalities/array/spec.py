"""Registration of arrays."""

from perceivers.data.modalities.array.decode import array_upload_sizes
from perceivers.data.modalities.array.modality import (
    ArrayAugmentConfig,
    ArrayModality,
    ArrayPreprocessConfig,
)
from perceivers.data.registry import (
    ColumnKind,
    ModalitySpec,
    OwnDataSize,
    Preprocessing,
    register_modality,
)


def _default(_: OwnDataSize) -> tuple[ArrayPreprocessConfig, ArrayAugmentConfig]:
    return ArrayPreprocessConfig(), ArrayAugmentConfig(noise=0.05)


register_modality(
    ModalitySpec(
        name="array",
        noun="arrays",
        preprocessing=(Preprocessing(ArrayPreprocessConfig, ArrayModality, _default),),
        augment=ArrayAugmentConfig,
        suffixes=("npy", "npz"),
        column_kinds={"array": ColumnKind("arrays", stored_as=("points",))},
        recipe="arrays",
        mixup="share",
        upload_sizes=array_upload_sizes,
    )
)
