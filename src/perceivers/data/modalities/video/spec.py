"""Registration of video."""

from collections.abc import Iterator

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.video.container import open_video, video_seconds
from perceivers.data.modalities.video.modality import (
    VideoAugmentConfig,
    VideoModality,
    VideoPreprocessConfig,
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
    with open_video(media) as (_, stream):
        codec = stream.codec_context
        yield UploadSize(codec.width * codec.height, "pixels in a frame", "pixels")
        yield UploadSize(video_seconds(media, stream), "seconds of video", "seconds")


def _is_video(data: bytes) -> bool:
    is_mp4 = data[4:8] == b"ftyp" and data[8:12] not in {b"avif", b"heic"}
    is_avi = data[:4] == b"RIFF" and data[8:12] == b"AVI "
    return is_mp4 or is_avi or data.startswith(b"\x1a\x45\xdf\xa3")


def _default(size: OwnDataSize) -> tuple[VideoPreprocessConfig, VideoAugmentConfig]:
    return VideoPreprocessConfig(max_side=size.largest_image), VideoAugmentConfig()


register_modality(
    ModalitySpec(
        name="video",
        noun="video",
        preprocessing=(Preprocessing(VideoPreprocessConfig, VideoModality, _default),),
        augment=VideoAugmentConfig,
        suffixes=("mp4", "avi", "mov", "mkv", "webm", "mpg", "mpeg", "m4v"),
        magic=_is_video,
        column_kinds={
            "video": ColumnKind("video", stored_as=("audio", "array")),
            "film": ColumnKind("video with audio", stored_as=("video", "audio")),
        },
        recipe="video",
        mixup="blend",
        upload_sizes=_upload_sizes,
    )
)
