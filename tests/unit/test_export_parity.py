"""predict.py of an export answers as `perceivers predict` does for every file that a run reads, or refuses it."""

import io

import numpy as np
import pytest
from PIL import Image

from perceivers.data.registry import get_modality
from perceivers.evaluation.predict import load_predictor
from perceivers.exporting import export as exporting
from perceivers.exporting.graph import build_graph
from perceivers.hub.checkpoint import load
from support import modality_data as made
from support.files import write_video, write_wav
from support.media_files import UNWRITTEN, write_audio_as, write_image_as, write_video_as
from support.models import save_untrained
from support.scripts import export_quickly, run_script

RNG = np.random.default_rng(0)


class Exported:
    """An exported model beside its predictor."""

    def __init__(self, folder, *kinds):
        run = save_untrained(folder / "run", *kinds)
        self.folder = folder / "out"
        with pytest.MonkeyPatch.context() as patch:
            export_quickly(patch)
            exporting.export(run, self.folder)
        self.graph = build_graph(load(run))
        self.predictor = load_predictor(run, device="cpu")

    def check(self, *files):
        """Compare the answers for some files."""
        expected = self.predictor.predict([str(file) for file in files])
        found = run_script(self.folder, self.graph, *files)
        for file, one, other in zip(files, found, expected, strict=True):
            assert one["probabilities"] == pytest.approx(other.probabilities, abs=2e-5), file

    def refuses(self, file, capsys):
        """Return the sentence by which the script refuses a file."""
        with pytest.raises(SystemExit, match="1"):
            run_script(self.folder, self.graph, file)
        return capsys.readouterr().err


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    known = {}

    def get(*kinds):
        if kinds not in known:
            known[kinds] = Exported(tmp_path_factory.mktemp("-".join(kinds)), *kinds)
        return known[kinds]

    return get


def test_every_image_suffix(exported, tmp_path):
    suffixes = get_modality("image").suffixes
    exported("image").check(*(write_image_as(tmp_path / f"a.{one}") for one in suffixes))


def test_images_of_every_depth(exported, tmp_path):
    ramp = np.linspace(0, 1, 20 * 30).reshape(20, 30)
    images = {
        "16 bit.png": Image.fromarray((ramp * 60_000).astype(np.uint16)),
        "16 bit.tif": Image.fromarray((ramp[::-1] * 3000).astype(np.uint16)),
        "32 bit.tif": Image.fromarray((ramp * 90_000).astype(np.int32)),
        "float.tif": Image.fromarray(ramp.astype(np.float32)),
        "large float.tif": Image.fromarray((ramp * 700).astype(np.float32)),
        "16 bit.pgm": Image.fromarray((ramp * 60_000).astype(np.uint16)),
        "palette.png": Image.fromarray((ramp * 255).astype(np.uint8)).convert("P"),
        "black.png": Image.fromarray(ramp > 0.5),
        "cmyk.jpg": Image.fromarray(RNG.integers(0, 256, (20, 30, 4), np.uint8), "CMYK"),
        "gray alpha.png": Image.fromarray(RNG.integers(0, 256, (20, 30, 2), np.uint8), "LA"),
    }
    for name, image in images.items():
        image.save(tmp_path / name)
    for orientation in (3, 6, 7):
        exif = Image.Exif()
        exif[0x0112] = orientation
        images["16 bit.png"].save(tmp_path / f"turned {orientation}.tif", exif=exif)
    exported("image").check(*sorted(tmp_path.iterdir()))


@pytest.mark.parametrize("kinds", [("audio",), ("wave",)])
def test_every_audio_suffix(exported, tmp_path, kinds):
    suffixes = [one for one in get_modality("audio").suffixes if one not in UNWRITTEN]
    exported(*kinds).check(*(write_audio_as(tmp_path / f"a.{one}") for one in suffixes))


@pytest.mark.parametrize("kinds", [("audio",), ("wave",)])
def test_audio_without_a_length_and_of_several_channels(exported, tmp_path, kinds):
    wav = write_wav(tmp_path / "a.wav", made.tone(0, 1, seconds=0.9))
    data = wav.read_bytes()
    place = data.index(b"data") + 4
    (tmp_path / "streamed.wav").write_bytes(data[:place] + bytes(4) + data[place + 4 :])
    write_wav(tmp_path / "b.wav", np.stack([made.tone(0, n, seconds=0.4) for n in range(3)], 1))
    write_video(
        tmp_path / "c.mp4",
        made.frames(0, 0, count=15),
        audio=made.tone(1, 0, seconds=1.5, rate=16_000),
    )
    exported(*kinds).check(*sorted(tmp_path.iterdir()))


def test_every_video_suffix(exported, tmp_path):
    suffixes = get_modality("video").suffixes
    exported("video").check(*(write_video_as(tmp_path / f"a.{one}") for one in suffixes))


class Unseekable(io.RawIOBase):
    """A file that is written as a browser's recorder writes it: once, from its beginning to its end."""

    def __init__(self, path):
        self.file = path.open("wb")

    def writable(self):
        return True

    def write(self, data):
        return self.file.write(data)


def test_a_recording_without_a_length(exported, tmp_path):
    import av

    path = tmp_path / "live.webm"
    sink = Unseekable(path)
    with av.open(sink, "w", format="webm") as file:
        stream = file.add_stream("libvpx", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(15):
            pixels = np.full((48, 64, 3), number * 15, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    sink.file.close()
    with av.open(str(path)) as file:
        assert file.duration is None
    exported("video").check(path)
    exported("audio", "video").check(path)


def test_points_as_arrays_and_text(exported, tmp_path, capsys):
    cloud = made.points(0, 0, count=40)
    np.save(tmp_path / "a.npy", cloud)
    np.savez(tmp_path / "a.npz", points=cloud)
    lines = [" ".join(f"{x:.5f}" for x in row) for row in cloud]
    texts = {"b.xyz": lines, "c.pts": ["40", *lines], "d.asc": ["# a scan", "x y z", *lines]}
    texts |= {"e.xyz": [line.replace(".", ",") for line in lines]}
    texts |= {"f.xyz": [line.replace(" ", ",") for line in lines]}
    for name, rows in texts.items():
        (tmp_path / name).write_text("\n".join(rows) + "\n")
    exported("points").check(*sorted(tmp_path.iterdir()))
    for suffix in ("off", "ply", "obj", "stl", "glb", "pcd"):
        said = exported("points").refuses(tmp_path / f"g.{suffix}", capsys)
        assert "this script reads .npy, .npz and text" in said
        assert "'perceivers predict'" in said


def csv(path, header, rows, mark=","):
    path.write_text("\n".join([mark.join(header), *(mark.join(row) for row in rows)]) + "\n")


def test_series_of_every_spelling(exported, tmp_path, capsys):
    rows = [[f"{x:.3f}", f"{y:.3f}"] for x, y in RNG.normal(size=(20, 2))]
    csv(tmp_path / "a.csv", ["y", "note", "x"], [[b, "1", a] for a, b in rows])
    csv(tmp_path / "b.tsv", ["x", "y"], rows, "\t")
    csv(tmp_path / "c.csv", ["x", "y"], [[c.replace(".", ",") for c in r] for r in rows], ";")
    csv(tmp_path / "d.csv", ["x", "y"], [["NA", "n/a"], *rows])
    np.save(tmp_path / "e.npy", RNG.normal(size=(20, 2)))
    exported("series").check(*sorted(tmp_path.iterdir()))
    csv(tmp_path / "f.csv", ["x", "y"], [["x", "1"], *rows])
    assert "Cannot read" in exported("series").refuses(tmp_path / "f.csv", capsys)
    csv(tmp_path / "g.csv", ["x", "z"], rows)
    assert "it has no channel 'y'" in exported("series").refuses(tmp_path / "g.csv", capsys)
    assert "this script reads .csv" in exported("series").refuses(tmp_path / "h.parquet", capsys)


def test_times_that_the_script_would_read_otherwise_are_refused(exported, tmp_path, capsys):
    times, rows = np.linspace(0, 7, 20), RNG.normal(size=(20, 2))
    good = [[f"{t:.2f}", f"{x:.3f}", f"{y:.3f}"] for t, (x, y) in zip(times, rows, strict=True)]
    csv(tmp_path / "a.csv", ["time", "x", "y"], good)
    csv(tmp_path / "b.csv", ["time (s)", "x", "y"], good)
    csv(tmp_path / "c.csv", ["x", "y", "temperature", "time"], [[*r[1:], "3", r[0]] for r in good])
    exported("irregular").check(*sorted(tmp_path.iterdir()))
    csv(tmp_path / "d.csv", ["time_ms", "x", "y"], good)
    csv(tmp_path / "e.csv", ["time", "x", "y"], good[::-1])
    csv(tmp_path / "f.csv", ["time", "x", "y"], [["2024-05-31", *row[1:]] for row in good])
    for name in ("d.csv", "e.csv"):
        assert "rising times in seconds" in exported("irregular").refuses(tmp_path / name, capsys)
    assert "Cannot read" in exported("irregular").refuses(tmp_path / "f.csv", capsys)


def test_a_bad_file_is_named_and_the_others_are_predicted(exported, tmp_path, capsys):
    one = exported("image")
    (tmp_path / "bad.png").write_bytes(b"no image")
    good = write_image_as(tmp_path / "good, 2.png")
    with pytest.raises(SystemExit, match="1"):
        run_script(one.folder, one.graph, tmp_path / "bad.png", good)
    assert f"Cannot read '{tmp_path / 'bad.png'}'" in capsys.readouterr().err
    one.check(good)


def test_commas_in_paths_of_several_modalities(exported, tmp_path):
    image = write_image_as(tmp_path / "a, b=1.png")
    audio = write_audio_as(tmp_path / "c,d.wav")
    one = exported("image", "audio")
    one.check(f"image={image},audio={audio}", f"audio={audio}")
