"""Long texts as many rows."""

import pytest

from perceivers.data.base import DataConfig
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.text.chunks import TextChunking
from perceivers.data.modalities.text.modality import TextPreprocessConfig
from perceivers.data.registry import list_modalities
from perceivers.data.sources.chunking import ChunkedSamples, chunk_samples
from perceivers.data.sources.open import open_data
from perceivers.data.sources.split import with_validation
from perceivers.data.tables.table import ColumnTable, Field
from perceivers.recipes.resolve import split_for_task
from perceivers.tasks.masked import MaskedBytesConfig

CONFIG = DataConfig(target="nothing")


def texts_of(source, split="train"):
    records = source.splits[split]
    return [records.row(i)["text"] for i in range(len(records))]


def test_one_text_is_data(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("abcdefghij" * 10)
    source = open_data(str(path), CONFIG)
    assert source.target is None
    assert source.form == "a single file of text"
    pieces = chunk_samples(source, "text", 30, TextChunking())
    found = texts_of(pieces)
    assert [len(media.data) for media in found] == [25, 25, 25, 25]
    assert b"".join(media.data for media in found).decode() == path.read_text()
    assert found[1].name == f"{path} from byte 25"
    assert "at most 30 bytes: train 4" in pieces.notes[-1]
    held = with_validation(pieces, CONFIG)
    assert {name: len(split) for name, split in held.splits.items()} == {
        "train": 3,
        "validation": 1,
    }


def test_short_texts_stay_whole_and_empty_ones_are_left_out(tmp_path):
    for name, text in {"a": "short", "b": "", "c": "x" * 21}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    pieces = chunk_samples(open_data(str(tmp_path), CONFIG), "text", 10, TextChunking())
    found = texts_of(pieces)
    assert [media.data for media in found] == [b"short", b"x" * 7, b"x" * 7, b"x" * 7]
    assert found[0].name == str(tmp_path / "a.txt")


def test_no_character_is_cut_in_two(tmp_path):
    text = "aé漢😀" * 9
    (tmp_path / "a.txt").write_text(text)
    for length in range(8, 20):
        pieces = chunk_samples(open_data(str(tmp_path), CONFIG), "text", length, TextChunking())
        for media in texts_of(pieces):
            assert media.data.decode() in text


def test_texts_of_a_table_are_cut_and_their_labels_not_looked_at(tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_text("text,label,author\n" + f"{'word ' * 40},good,x\n{'other ' * 30},bad,y\n")
    source = open_data(str(path), DataConfig(target="nothing", group="author"))
    assert source.target is None
    pieces = chunk_samples(source, "text", 100, TextChunking())
    assert len(pieces.splits["train"]) == 4
    assert pieces.splits["train"].column("author") == ["x", "x", "y", "y"]


def test_texts_in_memory_are_cut_too():
    words = [EncodedItem("a", value="abcdef"), EncodedItem("b", data=b"ghijk"), EncodedItem("c")]
    table = ColumnTable(name="t", columns={"text": words}, fields={"text": Field("text")})
    pieces = ChunkedSamples(table, "text", 4, TextChunking())
    assert [pieces.row(i)["text"].data for i in range(len(pieces))] == [
        *(b"abc", b"def"),
        *(b"ghi", b"jk"),
    ]


def test_what_cannot_be_cut_is_told(tmp_path):
    (tmp_path / "a.txt").touch()
    source = open_data(str(tmp_path), CONFIG)
    with pytest.raises(ValueError, match="no text in column 'text' that is not empty: train 0"):
        chunk_samples(source, "text", 10, TextChunking())
    path = tmp_path / "rows.jsonl"
    line = '{"text": "%s", "label": 1}\n' % ("words in a row " * 9)
    path.write_text(line * 3)
    stream = open_data(str(path), DataConfig(target="nothing", stream=True))
    with pytest.raises(ValueError, match="Leave --stream out"):
        chunk_samples(stream, "text", 10, TextChunking())


def test_what_is_learned_from_has_room_and_never_overlaps_what_is_measured(tmp_path):
    text = "".join(f"{number:04d} " for number in range(400))
    (tmp_path / "book.txt").write_text(text)
    preprocess = {"text": TextPreprocessConfig(max_length=64)}
    source = open_data(str(tmp_path / "book.txt"), CONFIG)
    found = split_for_task(source, MaskedBytesConfig(), preprocess, CONFIG)
    train, held = (
        [media.data.decode() for media in texts_of(found, split)]
        for split in ("train", "validation")
    )
    assert max(map(len, train)) > 120
    assert max(map(len, held)) <= 64
    words = {word for piece in train + held for word in piece.split()}
    cut = set(text.split()) - words  # the words at the ends of chunks
    assert len(cut) <= 2 * len(held)
    assert not {part for one in train for part in one.split()[1:-1]} & {
        part for one in held for part in one.split()[1:-1]
    }
    whole = split_for_task(source, MaskedBytesConfig(), preprocess, None)
    assert set(whole.splits) == {"train"}


def test_random_windows_of_train_begin_everywhere_as_often(tmp_path):
    text = bytes(range(256)) * 8
    (tmp_path / "a.txt").write_bytes(text[: 16 * 128])
    source = open_data(str(tmp_path), CONFIG)
    chunks = ChunkedSamples(source.splits["train"], "text", 128, TextChunking())
    wider = chunks.with_margins(range(len(chunks)), 32)
    begins = [0] * len(text)
    for _, first, end in wider.chunks:
        for begin in range(first, end - 64):
            begins[begin] += 1
    # The first and last half window of a sample are the exceptions.
    assert set(begins[: len(text) - 96]) == {1}
    # A chunk that is held out bounds its neighbors.
    fewer = chunks.with_margins([0, 1, 3, 4], 32)
    assert fewer.chunks == [(0, 0, 160), (0, 96, 256), (0, 384, 544), (0, 480, 640)]
    assert len(fewer) == 4


def test_chunks_of_other_samples_are_not_joined(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("x" * 40)
    source = open_data(str(tmp_path), CONFIG)
    chunks = ChunkedSamples(source.splits["train"], "text", 20, TextChunking())
    wider = chunks.with_margins(range(4), 5)
    assert wider.chunks == [(0, 0, 25), (0, 15, 40), (1, 0, 25), (1, 15, 40)]


def test_a_single_text_of_one_chunk_cannot_be_divided(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("abcdefghij" * 6)
    source = open_data(str(path), CONFIG)
    task, preprocess = MaskedBytesConfig(), {"text": TextPreprocessConfig(max_length=30)}
    with pytest.raises(ValueError, match=r"book\.txt' alone has 60 bytes.* more than 60 of them"):
        split_for_task(source, task, preprocess, CONFIG)
    assert len(split_for_task(source, task, preprocess, None).splits["train"]) == 1


def test_files_of_which_one_is_enough():
    found = {spec.name for spec in list_modalities() if spec.is_chunked}
    assert found == {"text", "music"}
