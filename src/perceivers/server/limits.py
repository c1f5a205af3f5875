"""Limits of uploads, checked on headers before anything is decoded."""

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.registry import get_modality
from perceivers.server.settings import UploadLimits


class TooLargeError(ValueError):
    """An upload above a limit. The message states its size and the limit."""


def check(kind: str, media: EncodedItem, limits: UploadLimits) -> None:
    """Refuse an upload whose header states more than a limit.

    Args:
        kind: Its modality: `image`, `audio`, `video`, ...
        media: Its bytes, or a text.
        limits: Upper limits.

    Raises:
        TooLargeError: If it is above a limit.
        ValueError: If its header cannot be read. The message states the file and the reason.
    """
    upload_sizes = get_modality(kind).upload_sizes
    if upload_sizes is None or media.is_missing:
        return
    for size in upload_sizes(media):
        most = getattr(limits, size.limit)
        if not size.count <= most:  # NaN is refused too
            raise TooLargeError(
                f"'{media.name}' holds {size.count:,.10g} {size.unit}; at most {most:,.10g} are accepted here. Send a "
                "smaller one."
            )
