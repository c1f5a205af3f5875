"""Points as a modality: a fixed number of points, centered, scaled and augmented."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.array.decode import array_upload_sizes, one_sentence
from perceivers.data.modalities.base import (
    SAMPLED_CELLS,
    BasePreprocessConfig,
    CellSampler,
    DecodedValue,
    read_cells,
    stack_padded,
)
from perceivers.data.modalities.points.decode import (
    PointCloud,
    draw_points,
    read_points,
    sample_surface,
    seed_of,
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
from perceivers.typing import Bool, Float, Tensor
from perceivers.wording import counted

Points = npt.NDArray[np.float32]

MOST_POINTS = 2048  # of a model, where their number is taken from the data; as in the paper
MESH_POINTS = 1024  # likewise of meshes, from which any number can be drawn
KEPT = (
    4  # times num_points are kept of a larger point cloud or a surface, for training to draw from
)
_LEAST_SIZE = 1e-30  # of a point cloud that is scaled; below, it is one point


@configclass
class PointsPreprocessConfig(BasePreprocessConfig):
    """Preprocessing of a point cloud without randomness. Saved with the model.

    Attributes:
        num_points: Points of a sample at most. None: taken from the data, see `measure_points`.
        num_channels: Further channels of a point, behind x, y and z: colors, normals. 0: only the coordinates count,
            as in the paper. None: taken from the data.
        normalize: `center` moves the mean to zero. `cube` then divides by the largest coordinate, so that all lie in
            [-1, 1]; `sphere` by the largest distance. `none` leaves the coordinates as they are.
        mean: Subtracted from each further channel. (): nothing is.
        std: Each further channel is divided by it after that. (): by nothing.
        normals: First of three further channels that are a normal vector, which turns with the points. None: none is.

    Raises:
        ValueError: If a number is out of range, or mean and std do not fit the channels.

    Reference: Perceiver (arXiv:2103.03206), section 4.3: zero mean and unit cube.
    """

    kind: Literal["points"] = "points"
    num_points: int | None = None
    num_channels: int | None = None
    normalize: Literal["cube", "sphere", "center", "none"] = "cube"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    normals: int | None = None

    def __post_init__(self) -> None:
        channels = self.num_channels or 0
        if (self.num_points is not None and self.num_points < 1) or channels < 0:
            raise ValueError(
                f"Expected num_points of at least 1 and num_channels of at least 0, got {self.num_points} "
                f"and {self.num_channels}."
            )
        if {len(self.mean), len(self.std)} - {0, channels} or min(self.std, default=1) <= 0:
            raise ValueError(
                f"Expected mean and std of {counted(channels, 'number')} each, std above 0, for num_channels="
                f"{self.num_channels}; got mean={self.mean} and std={self.std}."
            )
        if self.normals is not None and not 0 <= self.normals <= channels - 3:
            raise ValueError(
                f"Expected three of {channels} further channels for normals={self.normals}."
            )

    def measure(self, cells: CellSampler) -> "PointsPreprocessConfig":
        """Return the configuration with open fields taken from the training data, see `measure_points`."""
        return measure_points(cells(SAMPLED_CELLS), self)

    def assumed(self) -> dict[str, Any]:
        """Return sizes that are assumed without data."""
        return {"num_points": 1024, "num_channels": 0}

    def input_fields(self) -> dict[str, Any]:
        """Return the sizes that the input adapter takes over."""
        return {"num_points": self.num_points, "num_channels": self.num_channels}


@configclass
class PointsAugmentConfig:
    """Augmentation of a point cloud in training. By default what the paper found to help.

    In this order: points are dropped, scaled one by one, turned and mirrored, all about their mean; then all are
    normalized, scaled as a whole, jittered and moved.

    Attributes:
        scale: Smallest and largest factor of each point by itself.
        cloud_scale: Smallest and largest factor of all points together.
        axis_scale: Smallest and largest factor of each axis by itself.
        jitter: Standard deviation of what is added to each normalized coordinate, and its largest value.
        translate: Largest distance by which the normalized point cloud moves along each axis.
        rotate: About which axis it turns; `all` is one drawn at random.
        max_angle: By how many degrees at most, either way.
        flip: For each axis, the probability that the point cloud is mirrored along it.
        drop: Largest share of the points that is left out. One point always stays.
        mixup: Alpha of mixup's beta distribution. 0: off. Points keep their places in the sample, so it mixes
            unrelated points of two point clouds.

    Raises:
        ValueError: If a range is empty or a number is out of range.

    Reference: Perceiver (arXiv:2103.03206), section 4.3: factors in [0.99, 1.01]; turns and moves gained nothing there.
    """

    kind: Literal["points"] = "points"
    scale: tuple[float, float] = (0.99, 1.01)
    cloud_scale: tuple[float, float] = (1.0, 1.0)
    axis_scale: tuple[float, float] = (1.0, 1.0)
    jitter: tuple[float, float] = (0.0, 0.0)
    translate: float = 0.0
    rotate: Literal["none", "z", "y", "all"] = "none"
    max_angle: float = 180.0
    flip: tuple[float, float, float] = (0.0, 0.0, 0.0)
    drop: float = 0.0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        for name in ("scale", "cloud_scale", "axis_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(
                    f"Expected {name}=(smallest, largest), both above 0, got {(low, high)}."
                )
        small = (*self.jitter, self.translate, self.max_angle, self.mixup)
        shares = (*self.flip, self.drop)
        if min(small) < 0 or min(shares) < 0 or max(self.flip) > 1 or self.drop >= 1:
            raise ValueError(
                "Expected jitter, translate, max_angle and mixup of at least 0, flip in [0, 1] and drop in [0, 1), "
                f"got {self}."
            )


class PointsModality:
    """Modality of points from files and arrays; of meshes, points are sampled from the surface.

    Raises:
        ValueError: If the numbers of points or channels are not known yet.
    """

    has_clips: bool = False

    def __init__(
        self, preprocess: PointsPreprocessConfig, augment: PointsAugmentConfig | None = None
    ) -> None:
        if preprocess.num_points is None or preprocess.num_channels is None:
            raise ValueError(
                "Expected the numbers of points and of further channels of a point, got num_points="
                f"{preprocess.num_points} and num_channels={preprocess.num_channels}. Measure them first."
            )
        self.preprocess, self.augment = preprocess, augment
        self.num_points, self.num_channels = preprocess.num_points, preprocess.num_channels

    def decode(self, media: EncodedItem, *, clip_position: float | None = None) -> DecodedValue:  # noqa: ARG002
        """Return the points of a cell: n x (3 + E), float32, at most 4 times as many as a sample has.

        Of a mesh so many are drawn from its surface, of a larger point cloud from its points. What is drawn depends on
        nothing but the content, so predictions repeat. The first `num_points` are spread over the whole point cloud: an
        array whose first points are that already, as in farthest-point order, keeps its order.
        """
        cloud = read_points(media)
        width, notes = 3 + self.num_channels, list(cloud.notes)
        there = cloud.points.shape[1]
        if there < width:
            raise ValueError(
                f"Expected {width} numbers for each point of '{media.name}' (x, y, z and {self.num_channels} further "
                f"channels), got {there}. Give all files the same channels, or set num_channels={there - 3}."
            )
        if there > width:
            cloud = replace(cloud, points=cloud.points[:, :width])
            notes.append("further channels left out")
        with one_sentence(media.name, "a point cloud"):
            points = self._spread(cloud)
        # Before the cast: a float32 in meters of a map's grid knows half a meter.
        centered = _centered(points[:, :3].astype(np.float64))
        if points.shape[0] > 1 and not centered.any():
            notes.append("all points are the same")
        if self.preprocess.normalize != "none":
            points = _joined(centered, points[:, 3:])
        return DecodedValue(points.astype(np.float32), tuple(notes))

    def transform(
        self,
        value: Any,
        *,
        clip_position: float = 0.5,  # noqa: ARG002
        rng: np.random.Generator | None = None,
    ) -> Points:
        """Return one sample: at most `num_points` x (3 + E), float32. Fewer where there are no more."""
        points: Points = value[: self.num_points]
        if rng is not None:
            points = draw_points(value, self.num_points, rng)
        augment = None if rng is None else self.augment
        xyz, further = points[:, :3], points[:, 3:]
        if len(self.preprocess.mean):
            further = further - np.asarray(self.preprocess.mean, dtype=np.float32)
        if len(self.preprocess.std):
            further = further / np.asarray(self.preprocess.std, dtype=np.float32)
        if augment is None or rng is None:
            return _joined(self._normalized(xyz), further)
        if augment.drop:
            left = xyz.shape[0] * (1 - rng.uniform(0, augment.drop))
            kept = rng.permutation(xyz.shape[0])[: max(1, round(left))]
            xyz, further = xyz[kept], further[kept]
        xyz = xyz * _uniform(rng, augment.scale, (xyz.shape[0], 1))
        turn = _turn(augment, rng)
        if turn is not None:
            xyz, further = xyz @ turn.T, self._turned(further, turn)
        xyz = self._normalized(xyz)
        if augment.axis_scale != (1.0, 1.0):
            factors = _uniform(rng, augment.axis_scale, (1, 3))
            xyz, further = xyz * factors, self._stretched(further, factors)
        return _joined(_shaken(xyz, augment, rng), further)

    def collate(
        self, samples: Sequence[Any]
    ) -> tuple[Float[Tensor, "B n C"], Bool[Tensor, "B n"] | None]:
        """Return samples as B x n x (3 + E), and which points are real. None is a missing sample."""
        like = (self.num_points, 3 + self.num_channels)
        return stack_padded(samples, like=like, dtype=np.float32)

    def _spread(self, cloud: PointCloud) -> npt.NDArray[Any]:
        """Return points whose first `num_points` represent the whole point cloud, at most 4 times as many."""
        points, most = cloud.points, KEPT * self.num_points
        if cloud.faces is not None:
            return sample_surface(cloud, most, np.random.default_rng(seed_of(cloud)))
        if points.shape[0] <= self.num_points:
            return points
        if points.shape[0] <= most:
            first, every = (
                np.ptp(points[: self.num_points, :3], axis=0),
                np.ptp(points[:, :3], axis=0),
            )
            if (first >= 0.9 * every).all():
                return points
        rng = np.random.default_rng(seed_of(cloud))
        return rng.permutation(draw_points(points, most, rng))

    def _normalized(self, xyz: Points) -> Points:
        way = self.preprocess.normalize
        if way == "none":
            return xyz
        centered = _centered(xyz.astype(np.float64))
        size = 1.0
        if way == "cube":
            size = float(np.abs(centered).max())
        elif way == "sphere":
            size = float(np.linalg.norm(centered, axis=1).max())
        return (centered / (size if size > _LEAST_SIZE else 1.0)).astype(np.float32)

    def _turned(self, further: Points, turn: Points) -> Points:
        """Return further channels whose normals are turned as the point cloud is."""
        first = self.preprocess.normals
        if first is None:
            return further
        turned = further.copy()
        turned[:, first : first + 3] = further[:, first : first + 3] @ turn.T
        return turned

    def _stretched(self, further: Points, factors: Points) -> Points:
        """Return further channels whose normals stay normal to a surface that is stretched along the axes."""
        first = self.preprocess.normals
        if first is None:
            return further
        normals = further[:, first : first + 3]
        moved = normals / factors
        lengths = np.linalg.norm(moved, axis=1, keepdims=True)
        stretched = further.copy()
        stretched[:, first : first + 3] = moved / np.maximum(lengths, 1e-12)
        return stretched


def measure_points(
    cells: Iterable[EncodedItem], config: PointsPreprocessConfig
) -> PointsPreprocessConfig:
    """Return a configuration whose open fields fit a sample of cells.

    `num_points` becomes the commonest number of points, at most 2,048; 1,024 where most are meshes. `num_channels`
    becomes what all of them have; mean and standard deviation of these channels are measured, but for normals, which
    are recognized by their length.

    Raises:
        ValueError: If none of the cells can be read. The message states the reason of the first.
    """
    clouds: list[npt.NDArray[Any]] = []
    counts: Counter[int] = Counter()
    for cloud in read_cells(cells, read_points, "point cloud"):
        most = min(cloud.points.shape[0], MOST_POINTS)
        counts[MESH_POINTS if cloud.faces is not None else most] += 1
        clouds.append(draw_points(cloud.points, MOST_POINTS, np.random.default_rng(0)))
    if config.num_points is None:
        config = replace(config, num_points=counts.most_common(1)[0][0])
    if config.num_channels is not None:
        return config
    channels = min(cloud.shape[1] for cloud in clouds) - 3
    further = np.concatenate([cloud[:, 3 : 3 + channels] for cloud in clouds]).astype(np.float64)
    mean, std = further.mean(axis=0), further.std(axis=0)
    normals = next((first for first in range(channels - 2) if _are_normals(further, first)), None)
    if normals is not None:
        mean[normals : normals + 3], std[normals : normals + 3] = 0, 1
    std[std < 1e-6 * (1 + np.abs(mean))] = 1  # a constant channel has no deviation to divide by
    return replace(
        config,
        num_channels=channels,
        mean=tuple(float(f"{number:.5g}") for number in mean),
        std=tuple(float(f"{number:.5g}") for number in std),
        normals=normals,
    )


def _are_normals(further: npt.NDArray[np.float64], first: int) -> bool:
    lengths = np.linalg.norm(further[:, first : first + 3], axis=1)
    signed = float(further[:, first : first + 3].min()) < 0  # colors are never negative
    return signed and float((np.abs(lengths - 1) < 0.05).mean()) > 0.95


def _centered(xyz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return points whose mean is zero; exactly, if they are all the same."""
    moved = xyz - xyz[0]
    return moved - moved.mean(axis=0)


def _joined(xyz: npt.NDArray[Any], further: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.concatenate([xyz, further], axis=1) if further.shape[1] else xyz


def _uniform(rng: np.random.Generator, bounds: tuple[float, float], size: Any) -> Points:
    return rng.uniform(*bounds, size=size).astype(np.float32)


def _turn(augment: PointsAugmentConfig, rng: np.random.Generator) -> Points | None:
    """Return a matrix that turns and mirrors, None if nothing is to be turned or mirrored."""
    if augment.rotate == "none" and not any(augment.flip):
        return None
    turn = turned_about(augment.rotate, augment.max_angle, rng)
    mirrored = rng.random(3) < np.asarray(augment.flip)
    return (turn * np.where(mirrored, -1.0, 1.0)).astype(np.float32)


def turned_about(
    axis: Literal["none", "z", "y", "all"], max_angle: float, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Return the matrix of a rotation about an axis by a random angle; `all` is an axis drawn at random."""
    if axis == "none":
        return np.eye(3)
    about = {"z": np.array([0.0, 0.0, 1.0]), "y": np.array([0.0, 1.0, 0.0])}.get(axis)
    if about is None:
        about = rng.normal(size=3)
        about = about / np.linalg.norm(about)
    angle = np.deg2rad(rng.uniform(-max_angle, max_angle))
    x, y, z = about
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)  # Rodrigues


def _shaken(xyz: Points, augment: PointsAugmentConfig, rng: np.random.Generator) -> Points:
    """Return a normalized point cloud scaled as a whole, each point moved a little, and moved as a whole."""
    if augment.cloud_scale != (1.0, 1.0):
        xyz = xyz * _uniform(rng, augment.cloud_scale, ())
    deviation, largest = augment.jitter
    if deviation:
        noise = rng.standard_normal(xyz.shape, dtype=np.float32) * np.float32(deviation)
        xyz = xyz + noise.clip(-largest, largest)
    if augment.translate:
        xyz = xyz + _uniform(rng, (-augment.translate, augment.translate), (1, 3))
    return xyz


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
    elif suffix == "pcd":
        counts = [int(count) for count in re.findall(rb"(?m)^POINTS\s+(\d+)", data[:4096])]
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


def _is_points(data: bytes) -> bool:
    is_stl = len(data) > 84 and len(data) == 84 + 50 * int.from_bytes(data[80:84], "little")
    return is_stl or data.startswith((b"ply\n", b"ply\r", b"OFF\n", b"COFF\n", b"glTF", b"# .PCD"))


def _default(size: OwnDataSize) -> tuple[PointsPreprocessConfig, PointsAugmentConfig]:
    augment = PointsAugmentConfig(
        axis_scale=(0.8, 1.25), jitter=(0.01, 0.03), translate=0.1, drop=0.3
    )
    return PointsPreprocessConfig(num_points=8 * size.stem_channels), augment  # 512 in `tiny`


register_modality(
    ModalitySpec(
        name="points",
        noun="points",
        preprocessing=(Preprocessing(PointsPreprocessConfig, PointsModality, _default),),
        augment=PointsAugmentConfig,
        suffixes=("off", "ply", "obj", "stl", "glb", "pcd", "xyz", "pts", "asc"),
        magic=_is_points,
        column_kinds={"points": ColumnKind("points", stored_as=("image", "array", "text"))},
        array_names=("points", "point_cloud", "pointcloud", "xyz", "cloud"),
        array_channels=(3, 12),
        recipe="points",
        mixup="share",
        accepts=("array",),
        upload_sizes=_upload_sizes,
    )
)
