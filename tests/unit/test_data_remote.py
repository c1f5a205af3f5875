import http.server
import io
import re
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest

from perceivers.data.base import DataConfig
from perceivers.data.formats import remote
from perceivers.data.formats.remote import (
    expand_braces,
    expand_remote,
    folder_of,
    is_remote,
    join_remote,
    open_binary,
    open_remote,
    suffix_of,
)
from perceivers.data.sources.layout import recognize
from perceivers.data.sources.open import open_data
from perceivers.data.streaming import shards
from perceivers.data.streaming.shards import infer_fields
from support.files import write_csv, write_jsonl, write_parquet, write_tar
from support.image_data import FEATURES, cells, members, name, png
from support.loaders import file_shard

STREAMED = DataConfig(stream=True, shuffle_buffer=4)


@pytest.fixture
def memory():
    """Return a function that puts a local file into fsspec's memory and tells its address."""
    store = fsspec.filesystem("memory")

    def put(path, place=None):
        address = f"memory://bucket/{place or path.name}"
        store.pipe_file(address, path.read_bytes())
        return address

    yield put
    if store.exists("bucket"):
        store.rm("bucket", recursive=True)


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves files, by ranges if it is asked to be able to."""

    ranges = True
    requests: list[str]

    def log_message(self, *args):
        pass

    def do_GET(self):
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if not self.ranges or wanted is None or not path.is_file():
            super().do_GET()
            return
        content = path.read_bytes()
        first, last = int(wanted[1]), min(int(wanted[2]), len(content) - 1)
        self.requests.append(f"{first}-{last}")
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(content[first : last + 1])

    def end_headers(self):
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
        super().end_headers()


@pytest.fixture
def serve(tmp_path):
    """Return a function that serves the test's folder, and tells its address."""
    servers = []

    def start(*, ranges=True):
        handler = type("Here", (Server,), {"ranges": ranges, "requests": []})
        made = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(handler, directory=str(tmp_path))
        )
        threading.Thread(target=made.serve_forever, daemon=True).start()
        servers.append(made)
        return f"http://127.0.0.1:{made.server_address[1]}", handler

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_addresses_are_told_from_paths():
    assert [is_remote(t) for t in ("s3://a/b", "https://x/y.tar", "memory://a", "file:///x")] == (
        [True] * 4
    )
    assert [is_remote(t) for t in ("a/b", "C:/x", "owner/name:sub", Path("s3://a"), None)] == (
        [False] * 5
    )
    assert suffix_of("https://x/y/a.TAR?token=1.2") == ".tar"
    assert suffix_of("s3://b/a.parquet") == ".parquet"
    assert suffix_of(Path("a/b.CSV")) == ".csv"
    assert (folder_of(Path("a/b.csv")), folder_of("s3://a/b.csv")) == (Path("a"), Path())
    assert join_remote("s3://b/x/t.csv", "img/1.png") == "s3://b/x/img/1.png"
    assert join_remote("s3://b/x/t.csv", "https://y/1.png") == "https://y/1.png"


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("a-{000..002}.tar", ["a-000.tar", "a-001.tar", "a-002.tar"]),
        ("a-{9..11}", ["a-9", "a-10", "a-11"]),
        ("{a,b}{1..2}", ["a1", "a2", "b1", "b2"]),
        ("plain{x}", ["plain{x}"]),
    ],
)
def test_braces_expand_as_in_a_shell(text, expanded):
    assert expand_braces(text) == expanded


def test_remote_patterns_and_folders_name_files(tmp_path, memory):
    path = write_tar(tmp_path / "a.tar", members(range(3)))
    made = [memory(path, f"d/train-{n}.tar") for n in range(3)]
    assert expand_remote("memory://bucket/d/train-{0..2}.tar") == made
    assert [p.rpartition("/")[2] for p in expand_remote("memory://bucket/d/*.tar")] == (
        ["train-0.tar", "train-1.tar", "train-2.tar"]
    )
    assert len(expand_remote("memory://bucket/d/")) == 3
    with pytest.raises(FileNotFoundError, match="No file matches 'memory://bucket/x/"):
        expand_remote("memory://bucket/x/*.tar")
    form = recognize("memory://bucket/d/*.tar")
    assert form.form == "WebDataset shards at memory://, train only"
    memory(path, "d/test-0.tar")
    found = recognize("memory://bucket/d")
    assert found.form == "WebDataset shards at memory://, split into train and test"
    assert {split: len(place.paths) for split, place in found.splits.items()} == (
        {"train": 3, "test": 1}
    )
    assert recognize(made[0]).form == "a file of WebDataset shards at memory://"
    memory(path, "e/part-1.tar")
    memory(path, "e/part-2.tar")
    assert recognize("memory://bucket/e").form == "2 files of WebDataset shards at memory://"


def test_remote_files_of_no_or_several_kinds_are_refused(tmp_path, memory):
    path = write_tar(tmp_path / "a.tar", members(range(3)))
    memory(path, "d/a.tar")
    memory(path, "d/a.parquet")
    with pytest.raises(ValueError, match=r"names files of \.parquet, \.tar: expected one of"):
        recognize("memory://bucket/d")
    with pytest.raises(ValueError, match=r"a\.zip' names no such file: expected one of"):
        recognize("memory://bucket/a.zip")


def test_lists_name_the_shards_of_one_split(tmp_path, memory):
    path = write_tar(tmp_path / "a.tar", members(range(3)))
    found = recognize([path, memory(path)])
    assert found.form == "2 files of WebDataset shards"
    assert found.splits["train"].paths == (path, memory(path))
    assert open_data([str(path)], DataConfig()).form == "1 file of WebDataset shards"
    with pytest.raises(ValueError, match=r"Expected a list of files of one kind.* got nothing"):
        recognize([])
    with pytest.raises(ValueError, match=r"Expected a list of files of one kind.* got .*\.csv"):
        recognize([path, write_csv(tmp_path / "b.csv", [{"a": 1}])])


def written(folder):
    rows = [{"image": f"img/{n}.png", "label": name(n)} for n in range(6)]
    return [
        write_csv(folder / "a.csv", rows),
        write_jsonl(folder / "a.jsonl", rows),
        write_tar(folder / "a.tar", members(range(6))),
        write_parquet(folder / "a.parquet", cells(range(6)), FEATURES, row_group_size=2),
        write_parquet(
            folder / "b.parquet",
            {c: [row[c] for row in rows] for c in ("image", "label")},
            {"image": {"_type": "Image"}},
        ),
    ]


@pytest.mark.parametrize("kind", range(5))
def test_remote_shards_are_streamed(tmp_path, memory, kind):
    address = memory(written(tmp_path)[kind])
    store = fsspec.filesystem("memory")
    for n in range(6):
        store.pipe_file(f"memory://bucket/img/{n}.png", png(n))
    fields = infer_fields(address)
    shard = file_shard(address, fields)
    assert (shard.name, shard.num_rows) == (address, 6)
    for start in range(7):
        rows = list(shard.rows(start))
        assert [row["image"].read() for row in rows] == [png(n) for n in range(start, 6)]
    source = open_data(address, STREAMED)
    assert source.label_names == ("cat", "dog", "eel")
    assert sorted(r["image"].read() for r in source.streams["train"]) == (
        sorted(png(n) for n in range(6))
    )


def test_a_file_beside_a_remote_table_that_is_missing_is_a_bad_row(tmp_path, memory):
    address = memory(write_csv(tmp_path / "a.csv", [{"image": "img/9.png"}, {"image": ""}]))
    fields = infer_fields(address)
    missing, empty = file_shard(address, fields).rows(0)
    with pytest.raises(
        OSError, match=r"a\.csv, line 2: 'memory://bucket/img/9\.png' does not exist"
    ):
        missing["image"].read()
    assert empty["image"].is_missing


def test_remote_parquet_is_read_by_index_and_the_rest_says_to_stream(tmp_path, memory):
    source = open_data(memory(written(tmp_path)[3]), DataConfig())
    assert source.splits["train"].row(4)["image"].read() == png(4)
    assert source.targets("train") == [0, 1, 2, 0, 1, 2]
    with pytest.raises(ValueError, match=r"a\.tar is remote: only Parquet .* Use --stream"):
        open_data(memory(written(tmp_path)[2]), DataConfig())


def test_a_damaged_remote_file_is_named(tmp_path, memory):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"memory://bucket/a\.parquet cannot be read as Parquet"):
        open_data(memory(tmp_path / "a.parquet"), DataConfig())


def test_local_addresses_are_opened_too(tmp_path):
    path = write_tar(tmp_path / "a.tar", members(range(3)))
    with open_binary(path) as local, open_binary(f"file://{path}") as addressed:
        assert local.read() == addressed.read()
    assert len(list(open_data(f"file://{path}", STREAMED).streams["train"])) == 3


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("kind", [1, 2, 3])
def test_files_are_streamed_over_http(tmp_path, serve, ranges, kind):
    path = written(tmp_path)[kind]
    (tmp_path / "img").mkdir()
    for n in range(6):
        (tmp_path / "img" / f"{n}.png").write_bytes(png(n))
    address, handler = serve(ranges=ranges)
    source = open_data(f"{address}/{path.name}", STREAMED)
    assert sorted(r["image"].read() for r in source.streams["train"]) == (
        sorted(png(n) for n in range(6))
    )
    assert bool(handler.requests) == ranges
    with pytest.raises(
        FileNotFoundError, match=r"x\.tar' does not exist or cannot be reached\. Check"
    ):
        open_remote(f"{address}/x.tar")


def test_a_server_that_says_it_has_ranges_and_has_none_is_read_whole(tmp_path, serve):
    path = write_tar(tmp_path / "a.tar", {"1.png": bytes(5 * 2**20)})
    address, handler = serve()
    handler.do_GET = http.server.SimpleHTTPRequestHandler.do_GET
    assert open_remote(f"{address}/a.tar").read() == path.read_bytes()


def test_what_cannot_be_reached_or_opened_is_told(monkeypatch):
    with pytest.raises(OSError, match="'nothing://a/b' cannot be opened: Protocol not known"):
        open_remote("nothing://a/b")
    with pytest.raises(
        OSError, match=r"'http://127\.0\.0\.1:9/a\.tar' does not exist or cannot be"
    ):
        open_remote("http://127.0.0.1:9/a.tar")
    files = SimpleNamespace(open=lambda *a, **k: (_ for _ in ()).throw(RuntimeError("no key")))
    monkeypatch.setattr(remote, "_filesystem", lambda address: (files, address))
    with pytest.raises(OSError, match=r"'s3://a/b\.tar' cannot be read: no key\."):
        open_remote("s3://a/b.tar")
    monkeypatch.undo()
    with pytest.raises(
        OSError, match=r"127\.0\.0\.1:9/\*\.tar' cannot be listed: .* brace|pattern"
    ):
        expand_remote("http://127.0.0.1:9/*.tar")


def test_what_is_not_installed_is_told():
    with pytest.raises(ImportError, match="s3fs"):
        open_remote("s3://bucket/a.tar")


class Failing(io.BytesIO):
    """A file whose network fails now and then."""

    failures = 0

    def read(self, *args):
        if type(self).failures:
            type(self).failures -= 1
            raise ConnectionResetError("the network is down")
        return super().read(*args)


@pytest.mark.parametrize("failures", [3, 30])
def test_reading_goes_on_when_the_network_does(tmp_path, memory, monkeypatch, failures):
    path = write_tar(tmp_path / "a.tar", members(range(3)))
    shard = file_shard(memory(path), infer_fields(path))
    rows = shard.rows(0)
    monkeypatch.setattr(Failing, "failures", failures)
    monkeypatch.setattr(shards, "_PAUSE", 0.0)
    monkeypatch.setattr(
        "perceivers.data.formats.webdataset.open_binary", lambda p: Failing(path.read_bytes())
    )
    if failures == 3:
        assert [row["image"].read() for row in rows] == [png(n) for n in range(3)]
    else:
        message = r"a\.tar cannot be read from row 0 on, tried 4 times: the network is down"
        with pytest.raises(OSError, match=message):
            next(rows)


def test_a_local_disk_that_fails_is_not_tried_again(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "a.tar", members(range(3)))
    shard = file_shard(path, infer_fields(path))
    monkeypatch.setattr(Failing, "failures", 1)
    monkeypatch.setattr(
        "perceivers.data.formats.webdataset.open_binary", lambda p: Failing(path.read_bytes())
    )
    with pytest.raises(ConnectionResetError):
        next(shard.rows(0))
    assert remote.is_remote(shard.path) is False
