from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.loading.sampler import LoaderSettings
from perceivers.data.loading.transform import SampleRng, SampleTransform
from perceivers.data.modalities.base import MissingValueError, Modality
from perceivers.data.modalities.text.modality import (
    BYTE_OFFSET,
    MASK,
    MOST_BYTES,
    PAD,
    SEP,
    TextAugmentConfig,
    TextModality,
    TextPreprocessConfig,
    measure_text,
)
from perceivers.data.tables.columns import InputColumn


def reader(max_length: int = 16, **settings) -> TextModality:
    return TextModality(TextPreprocessConfig(max_length=max_length, **settings))


def read(texts: TextModality, value, **how) -> np.ndarray:
    return texts.transform(texts.decode(EncodedItem("a cell", value=value)).value, **how)


def as_text(ids: np.ndarray) -> str:
    return bytes((ids - 6).astype(np.uint8)).decode()


def test_a_byte_is_its_number_plus_six():
    ids = read(reader(), "Aé\n")
    assert ids.tolist() == [65 + 6, 0xC3 + 6, 0xA9 + 6, 10 + 6]
    assert ids.dtype == np.int64
    assert (PAD, MASK, SEP) == (0, 3, 5)
    assert isinstance(reader(), Modality)


def test_a_file_and_its_bytes_are_read_alike(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfhello")
    texts = reader()
    for media in (EncodedItem(str(path), path=path), EncodedItem("bytes", data=path.read_bytes())):
        decoded = texts.decode(media)
        assert bytes(decoded.value) == b"hello"  # without the mark of the byte order
        assert decoded.notes == ()
    assert bytes(texts.decode(EncodedItem("a", value=b"raw")).value) == b"raw"


@pytest.mark.parametrize("media", [{"value": ""}, {"data": b""}, {"data": b"\xef\xbb\xbf"}])
def test_an_empty_text_is_an_error(media):
    with pytest.raises(
        ValueError, match=r"'a.txt' is empty: expected a text, got nothing"
    ) as error:
        reader().decode(EncodedItem("a.txt", **media))
    assert not isinstance(error.value, MissingValueError)


def test_blanks_are_a_text():
    assert read(reader(), "  ").tolist() == [38, 38]


def test_an_empty_cell_is_missing():
    with pytest.raises(MissingValueError, match="'row 3' is empty: expected a text, got no cell"):
        reader().decode(EncodedItem("row 3"))


def test_a_number_is_no_text():
    with pytest.raises(ValueError, match="'row 3' is no text: expected a string, got int"):
        reader().decode(EncodedItem("row 3", value=5))


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    path = tmp_path / "b.txt"
    with pytest.raises(OSError, match=r"b.txt' cannot be read"):
        reader().decode(EncodedItem(str(path), path=path))


def test_invalid_utf8_is_read_and_noted():
    decoded = reader().decode(EncodedItem("a", data=b"na\xefve words"))
    assert bytes(decoded.value) == b"na\xefve words"
    assert decoded.notes == ("not valid UTF-8",)
    assert reader().decode(EncodedItem("a", value="\ud800")).notes == ("not valid UTF-8",)


def test_a_trailing_nul_is_read_and_noted():
    assert reader().decode(EncodedItem("a", data=b"abc\0\0")).notes == ("not valid UTF-8",)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("hello".encode("utf-16"), "full of NUL bytes, so it is binary, or UTF-16"),
        (bytes(range(256)) * 2, "full of NUL bytes"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "it holds image"),
    ],
)
def test_a_binary_file_is_an_error(data, reason):
    with pytest.raises(ValueError, match=f"Cannot read 'b.bin' as a text: .*{reason}.*UTF-8"):
        reader().decode(EncodedItem("b.bin", data=data))


def test_a_longer_text_is_cut_and_noted():
    decoded = reader(8).decode(EncodedItem("a", value="0123456789"))
    assert decoded.notes == ("cut to 8 bytes",)
    assert as_text(reader(8).transform(decoded.value)) == "01234567"


def test_exactly_the_length_is_not_cut():
    assert reader(8).decode(EncodedItem("a", data=b"\xef\xbb\xbf01234567")).notes == ()


@pytest.mark.parametrize("start", range(4))
def test_no_character_is_cut_in_two(start: int):
    text = "a" * start + "€" * 10  # three bytes each
    assert as_text(read(reader(11), text)) == text[: start + (11 - start) // 3]


def test_both_ends_are_kept_around_a_mark():
    ids = read(reader(11, keep="ends"), "abcdefghijklmnopqrstuvwxyz")
    assert as_text(ids[:5]) == "abcde"
    assert ids[5] == SEP
    assert as_text(ids[6:]) == "vwxyz"
    assert as_text(read(reader(11, keep="ends"), "short")) == "short"


@pytest.mark.parametrize("keep", ["start", "ends"])
def test_of_a_large_file_only_what_is_needed_is_read(keep, tmp_path: Path):
    text = ("é" * 1000 + "z") * 6000  # 12 MB
    path = tmp_path / "large.txt"
    path.write_text(text, encoding="utf-8")
    texts = reader(21, keep=keep)
    from_file = texts.decode(EncodedItem("large", path=path))
    from_cell = texts.decode(EncodedItem("large", value=text))
    assert len(from_file.value) <= 64
    assert bytes(from_file.value) == bytes(from_cell.value)
    assert from_file.notes == from_cell.notes == ("cut to 21 bytes",)
    ids = texts.transform(from_file.value)
    if keep == "start":
        assert as_text(ids) == "é" * 10
    else:
        assert as_text(ids[:10]) == "é" * 5
        assert as_text(ids[11:]) == "é" * 4 + "z"


def test_a_random_part_is_taken_from_the_first_mebibyte():
    texts = TextModality(TextPreprocessConfig(max_length=64), TextAugmentConfig())
    decoded = texts.decode(EncodedItem("a", value="x" * 10_000_000))
    assert decoded.value.shape == (MOST_BYTES,)


def test_crops_of_training_lie_anywhere_and_evaluation_reads_the_start():
    texts = TextModality(TextPreprocessConfig(max_length=8), TextAugmentConfig())
    text = "".join(chr(97 + i) for i in range(26))
    rng = np.random.default_rng(0)
    found = {as_text(read(texts, text, rng=rng)) for _ in range(200)}
    assert len(found) == 19
    assert all(part in text for part in found)
    assert as_text(read(texts, text)) == "abcdefgh"
    assert as_text(read(texts, "short", rng=rng)) == "short"


def test_a_part_anywhere_is_that_of_the_moment_in_evaluation():
    texts = reader(8, keep="random")
    assert as_text(read(texts, "0123456789abcdef", clip_position=0.0)) == "01234567"
    assert as_text(read(texts, "0123456789abcdef")) == "456789ab"
    assert as_text(read(texts, "0123456789abcdef", clip_position=1.0)) == "89abcdef"


@given(st.text(min_size=1, max_size=60), st.integers(8, 40), st.floats(0, 1))
def test_any_window_is_part_of_the_text(text, most, clip_position):
    if "\0" in text:
        return
    text = text.encode("utf-8", "replace").decode()
    ids = read(reader(most, keep="random"), text, clip_position=clip_position)
    assert 0 < len(ids) <= most
    assert as_text(ids) in text


def test_whole_words_are_hidden():
    texts = TextModality(TextPreprocessConfig(max_length=64), TextAugmentConfig(mask=0.5))
    text = "one two three four five six seven"
    ids = read(texts, text, rng=np.random.default_rng(0))
    shown = "".join("_" if i == MASK else chr(i - 6) for i in ids)
    words = dict(zip(text.split(), shown.split(), strict=True))
    assert all(after in (before, "_" * len(before)) for before, after in words.items())
    assert 0 < sum("_" in word for word in words.values()) < 7
    assert MASK not in read(texts, text)


def test_single_bytes_are_hidden_but_no_blanks():
    augment = TextAugmentConfig(mask=0.5, mask_unit="byte")
    texts = TextModality(TextPreprocessConfig(max_length=2048), augment)
    ids = read(texts, "ab " * 600, rng=np.random.default_rng(0))
    assert 0.25 < (ids == MASK).mean() < 0.42
    assert (ids[2::3] == 38).all()


def test_words_are_left_out():
    augment = TextAugmentConfig(word_dropout=0.5)
    texts = TextModality(TextPreprocessConfig(max_length=64), augment)
    kept = as_text(read(texts, "a b c d e f", rng=np.random.default_rng(0))).split()
    assert 0 < len(kept) < 6
    assert kept == sorted(kept)


def test_the_last_word_is_never_left_out():
    texts = TextModality(TextPreprocessConfig(max_length=64), TextAugmentConfig(word_dropout=0.99))
    assert as_text(read(texts, "alone", rng=np.random.default_rng(0))) == "alone"


def test_batches_are_padded_to_a_multiple():
    texts = reader(200)
    ids, mask = texts.collate([read(texts, "abc"), read(texts, "x" * 65), None])
    assert ids.shape == (3, 128)
    assert ids[0, :4].tolist() == [103, 104, 105, PAD]
    assert mask is not None
    assert mask.sum(dim=1).tolist() == [3, 65, 0]


def test_batches_are_never_longer_than_the_model():
    texts = reader(70)
    ids, mask = texts.collate([read(texts, "x" * 70)] * 2)
    assert ids.shape == (2, 70)
    assert mask is None
    ids, mask = texts.collate([None, None])
    assert ids.shape == (2, 70)
    assert mask is not None
    assert not mask.any()


def test_the_length_is_what_most_texts_fit_into(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("x" * 100)
    cells = [EncodedItem("a", value="x" * 100)] * 17 + [
        EncodedItem("a", path=path),
        EncodedItem("a", data=b"x" * 100),
        EncodedItem("a", value="x" * 10_000),
        EncodedItem("a"),
        EncodedItem("a", path=tmp_path / "missing.txt"),
    ]
    config = TextPreprocessConfig()
    assert measure_text([cells[0]] * 40 + cells, config).max_length == 128
    assert measure_text([cells[19]], config).max_length == 2048
    assert measure_text([cells[19]], config, largest=512).max_length == 512
    assert measure_text([EncodedItem("a", value="x")], config).max_length == 64
    known = TextPreprocessConfig(max_length=99)
    assert measure_text([], known) is known


def test_no_text_cannot_be_measured():
    with pytest.raises(ValueError, match=r"No text of a sample can be read. 'row 1' is empty"):
        measure_text([EncodedItem("row 1")], TextPreprocessConfig())
    with pytest.raises(ValueError, match="It holds no rows"):
        measure_text([], TextPreprocessConfig())


def test_settings_out_of_range_are_errors():
    with pytest.raises(ValueError, match="max_length of at least 8 bytes, got 7"):
        TextPreprocessConfig(max_length=7)
    with pytest.raises(ValueError, match=r"max_length in bytes, got None. Measure it"):
        TextModality(TextPreprocessConfig())
    with pytest.raises(ValueError, match=r"shares of the text in \[0, 1\), got mask=1.0"):
        TextAugmentConfig(mask=1.0)


def test_a_mark_in_a_text_is_one_hidden_byte():
    modality = TextModality(TextPreprocessConfig(max_length=16, marks=True))
    ids = modality.transform(modality.decode(EncodedItem("t", value="a [MASK][MASK]c")).value)
    assert ids.tolist() == [ord("a") + 6, ord(" ") + 6, MASK, MASK, ord("c") + 6]
    long = modality.decode(EncodedItem("t", value="[MASK]" * 40)).value
    assert modality.transform(long).tolist() == [MASK] * 16
    plain = TextModality(TextPreprocessConfig(max_length=16))
    assert MASK not in plain.transform(plain.decode(EncodedItem("t", value="[MASK]")).value)


def test_parts_of_a_long_text_are_clips():
    columns = {"text": InputColumn("text", "text")}
    for keep, parts in (("random", [b"aa", b"bc", b"dd"]), ("start", [b"aa"])):
        preprocess = {"text": TextPreprocessConfig(max_length=8, keep=keep)}
        settings = LoaderSettings(batch_size=1, num_clips=3)
        text = b"aaaaaaaa" + b"bbbbcccc" + b"dddddddd"
        row = {"text": EncodedItem("t", data=text)}
        sample, _ = SampleTransform(columns, preprocess, None, settings).sample(row, SampleRng())
        starts = [bytes((clip["text"][[0, -1]] - BYTE_OFFSET).tolist()) for clip in sample.clips]
        assert starts == parts
