"""Music as input elements: every event, as its number for autoregressive models or as a learned vector."""

from typing import Literal

from perceivers.inputs.registry import register_input
from perceivers.inputs.text import BytesInput, TextInputConfig
from perceivers.inputs.tokens import TokenInput
from perceivers.registry import configclass

_VOCAB_SIZE = 389


@configclass
class MusicTokenInputConfig:
    """Every event of music is an element, which an autoregressive model embeds itself.

    Attributes:
        max_length: Events at most. None: taken from the data before the model is built.
        vocab_size: Number of different tokens: 388 events and padding.
    """

    kind: Literal["music_tokens"] = "music_tokens"
    max_length: int | None = None
    vocab_size: int = _VOCAB_SIZE


@configclass
class MusicInputConfig:
    """Every event of music is an element: its learned vector, plus the learned vector of its place.

    Attributes:
        max_length: Events at most. None: taken from the data before the model is built.
        vocab_size: Number of different tokens: 388 events and padding.
        channels: Width of an element.
        embedding_scale: Standard deviation of the events' vectors at the start.
        position_init_scale: Standard deviation of the places' vectors at the start.
    """

    kind: Literal["music_events"] = "music_events"
    max_length: int | None = None
    vocab_size: int = _VOCAB_SIZE
    channels: int = 128
    embedding_scale: float = 1.0
    position_init_scale: float = 0.02


def _tokens(config: MusicTokenInputConfig) -> TokenInput:
    return TokenInput(config.max_length, config.vocab_size)


def _embedded(config: MusicInputConfig) -> BytesInput:
    return BytesInput(
        TextInputConfig(
            max_length=config.max_length,
            vocab_size=config.vocab_size,
            channels=config.channels,
            embedding_scale=config.embedding_scale,
            position_init_scale=config.position_init_scale,
        )
    )


def _default(stem_channels: int) -> MusicInputConfig:
    return MusicInputConfig(channels=stem_channels)


register_input(MusicTokenInputConfig, _tokens, preprocess="music")
register_input(MusicInputConfig, _embedded, preprocess="music", default=_default)
