"""Registration of frame pairs and of the flow between them."""

from perceivers.data.modalities.flow.crop import PairAugmentConfig
from perceivers.data.modalities.flow.frame_pairs import FramePairModality, FramePairPreprocessConfig
from perceivers.data.modalities.flow.modality import FlowModality, FlowPreprocessConfig
from perceivers.data.modalities.image.spec import image_upload_sizes
from perceivers.data.registry import ColumnKind, ModalitySpec, Preprocessing, register_modality

register_modality(
    ModalitySpec(
        name="frame_pair",
        noun="frame pairs",
        preprocessing=(Preprocessing(FramePairPreprocessConfig, FramePairModality),),
        augment=PairAugmentConfig,
        column_kinds={"frame": ColumnKind("frames", stored_as=("image",))},
        accepts=("image",),
        upload_sizes=image_upload_sizes,
    )
)
register_modality(
    ModalitySpec(
        name="flow",
        noun="flow",
        preprocessing=(Preprocessing(FlowPreprocessConfig, FlowModality),),
        augment=PairAugmentConfig,
        suffixes=("flo",),
        magic=lambda data: data.startswith(b"PIEH"),
        column_kinds={"flow": ColumnKind("flow", stored_as=("image", "array"))},
    )
)
