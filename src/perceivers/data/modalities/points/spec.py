"""Registration of points: clouds and meshes."""

import re
from collections.abc import Iterator

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.array.decode import array_upload_sizes
from perceivers.data.modalities.points.modality import (
    PointsAugmentConfig,
    PointsModality,
    PointsPreprocessConfig,
)
from perceivers.data.registry import (
    ColumnKind,
    ModalitySpec,
    OwnDataSize,
    Preprocessing,
    UploadSize,
    register_modality,
)

_PLY_COUNTS = re.compile(rb"element (?:vertex|face) (\d+)")
_OFF_COUNTS = re.compile(rb"\s*(?:(?:ST)?C?N?4?OFF)?\s*(?:#[^\n]*\n\s*)*(\d+)\s+(\d+)")


def _upload_sizes(media: EncodedItem) -> Iterator[UploadSize]:
    data = media.data or b""
    suffix = media.name.rpartition(".")[2].lower()
    if suffix in {"npy", "npz"}:
        yield from array_upload_sizes(media)
        return
    counts = [0]
    if suffix == "ply":
        counts = [int(count) for count in _PLY_COUNTS.findall(data[:4096])]
    elif suffix == "off":
        found = _OFF_COUNTS.match(data[:4096])
        counts = [] if found is None else [int(found[1]), int(found[2])]
    elif suffix == "stl" and b"facet" not in data[:4096]:
        counts = [int.from_bytes(data[80:84], "little")]
    elif suffix == "obj":
        counts = [data.count(b"\nv "), data.count(b"\nf ")]
    elif suffix != "glb":
        counts = [data.count(b"\n")]  # a point in a line
    yield UploadSize(max(counts, default=0), "points or triangles", "points")


def _default(size: OwnDataSize) -> tuple[PointsPreprocessConfig, PointsAugmentConfig]:
    augment = PointsAugmentConfig(cloud_scale=(0.8, 1.25), jitter=(0.01, 0.03), drop=0.3)
    return PointsPreprocessConfig(num_points=8 * size.stem_channels), augment  # 512 in `tiny`


register_modality(
    ModalitySpec(
        name="points",
        noun="points",
        preprocessing=(Preprocessing(PointsPreprocessConfig, PointsModality, _default),),
        augment=PointsAugmentConfig,
        suffixes=("off", "ply", "obj", "stl", "glb", "xyz"),
        column_kinds={"points": ColumnKind("points", stored_as=("image", "array", "text"))},
        array_names=("points", "point_cloud", "pointcloud", "xyz", "cloud"),
        array_channels=(3, 12),
        recipe="points",
        fine_encoder=False,
        mixup="share",
        accepts=("array",),
        upload_sizes=_upload_sizes,
    )
)
