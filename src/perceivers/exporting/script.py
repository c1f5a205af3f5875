"""predict.py beside an exported model: reads files, prepares them and prints predictions, without perceivers.

The script is put together from templates. Each reads the files of one kind of preprocessing: its function takes a path,
the preprocessing and the position of the clip (0 the first, 1 the last), and returns an array without padding.
Files that it would read otherwise than perceivers are refused. Functions that need only NumPy or Pillow are copied from
perceivers.
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from perceivers.data.modalities.image.decode import to_eight_bit, to_mode
from perceivers.data.modalities.points.decode import (
    DECIMAL_COMMAS,
    MAX_LINES,
    has_decimal_commas,
)
from perceivers.data.modalities.series.augment import MOST_STEPS, resampled
from perceivers.tasks.prediction import ANSWER_VERSION


@dataclass(frozen=True, kw_only=True, eq=False)
class ScriptTemplate:
    """A function of the script.

    Attributes:
        imports: Modules that it needs, or whole lines `from x import y`.
        uses: Templates of functions that it calls.
        beside: Replacement, if the model reads another kind too, by that kind: the audio track of the same video.
    """

    name: str
    text: str
    imports: tuple[str, ...] = ()
    uses: "tuple[ScriptTemplate, ...]" = ()
    beside: "Mapping[str, ScriptTemplate]" = field(default_factory=dict[str, "ScriptTemplate"])


_CROP = ScriptTemplate(
    name="crop",
    imports=("from PIL import Image",),
    text='''
def crop(width, height, how):
    """The box of an image that the model sees: left, top, right, bottom."""
    if not how["keep_aspect"]:
        return 0, 0, width, height
    aspect = how["size"][1] / how["size"][0]
    wide = min(width, height * aspect) * how["crop_fraction"]
    if how.get("resize") == "tensorflow":
        across, down = max(1, int(wide)), max(1, int(wide / aspect))
        left, top = (width - across + 1) // 2, (height - down + 1) // 2
        return left, top, left + across, top + down
    across, down = min(width, max(1, round(wide))), min(height, max(1, round(wide / aspect)))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def resized(image, how):
    """The pixels that the model sees: height x width x channels."""
    height, width = how["size"]
    box = crop(image.width, image.height, how)
    if how.get("resize") == "tensorflow":
        pixels = np.array(image.crop(box)).reshape(box[3] - box[1], box[2] - box[0], -1)
        return bicubic(bicubic(pixels, height, 0), width, 1)
    pixels = np.array(image.resize((width, height), Image.Resampling.BICUBIC, box=box))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def bicubic(pixels, wanted, axis):
    """Bicubic interpolation along an axis without antialiasing, as tf.image.resize does."""
    length = pixels.shape[axis]
    scale = np.float32(length) / np.float32(wanted)
    where = (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    index = np.floor(where).astype(int) + np.arange(-1, 3)[:, None]
    offset = np.rint((where - np.floor(where)) * np.float32(1024)).astype(float) / 1024
    near, far = np.stack([offset, 1 - offset]), np.stack([offset, 1 - offset]) + 1
    near = (1.5 * near - 2.5) * near * near + 1
    far = ((-0.5 * far + 2.5) * far - 4) * far + 2
    weights = np.stack([far[0], near[0], near[1], far[1]]).astype(np.float32)
    weights = np.where((index >= 0) & (index < length), weights, np.float32(0))
    weights *= np.float32(1) / (weights[0] + weights[1] + weights[2] + weights[3])
    shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    taps = zip(index.clip(0, length - 1), weights)
    return sum(pixels.take(i, axis) * weight.reshape(shape) for i, weight in taps)
''',
)

READ_IMAGE = ScriptTemplate(
    name="read_image",
    imports=("from PIL import Image",),
    uses=(_CROP,),
    text='''
def read_image(path, how, position):
    """The pixels of an image, upright, 8 bit, transparency on white."""
    if path.lower().endswith((".heic", ".heif", ".hif")):
        import pillow_heif

        pillow_heif.register_heif_opener()
    with open(path, "rb") as file, Image.open(file) as image:  # by its path, Pillow turns TIFF wrongly
        image.load()
        turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(orientation_of(image))
        image = to_mode(image, how["num_channels"], [])
    return resized(image if turn is None else image.transpose(Image.Transpose(turn)), how)


def orientation_of(image):
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF; the pixels are still good
        return 1


'''
    + f"{inspect.getsource(to_mode)}\n\n{inspect.getsource(to_eight_bit)}",
)

_FRAMES = ScriptTemplate(
    name="frames_of",
    text='''
def frames_of(container):
    """The first video stream that is no cover image, or None."""
    streams = container.streams.video
    return next((stream for stream in streams if not int(stream.disposition) & 0x400), None)


def average_rate(stream):
    return float(stream.average_rate or stream.guessed_rate or 25)


def seconds_of(path, stream):
    """The length of the frames: as it is stored, or from the times of all packets where it is not."""
    seconds = (stream.duration or 0) * float(stream.time_base)
    if seconds > 0 and stream.start_time is not None and stream.container.format.name != "mpeg":
        return seconds
    hours, *rest = stream.metadata.get("DURATION", "").split(":")
    try:
        minutes, seconds = rest
        seconds = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        seconds = 0.0
    return seconds if seconds > 0 else scanned_seconds(path)


def scanned_seconds(path):
    import av

    with av.open(str(path)) as container:
        stream = frames_of(container)
        step, frame = float(stream.time_base), 1 / average_rate(stream)
        first, end = float("inf"), 0.0
        for number, packet in enumerate(container.demux(stream)):
            if packet.size:
                stamp = packet.dts if packet.pts is None else packet.pts
                begin = number * frame if stamp is None else stamp * step
                first = min(first, begin)
                end = max(end, begin + ((packet.duration or 0) * step or frame))
    return max(end - first, frame)
''',
)

READ_VIDEO = ScriptTemplate(
    name="read_video",
    imports=("av", "math", "from PIL import Image"),
    uses=(_CROP, _FRAMES),
    text='''
def read_video(path, how, position):
    """The frames on screen at even times of the clip."""
    rate, count = how["frame_rate"], how["num_frames"]
    with av.open(str(path)) as video:
        stream = frames_of(video)
        if stream is None:
            raise Missing("it has no video stream")
        step, seconds = float(stream.time_base), seconds_of(path, stream)
        total, first = max(1, math.ceil(seconds * rate - 1e-3)), 0
        if count < total:
            start = math.floor(position * max(0.0, seconds - count / rate) * rate + 0.5)
            first = min(total - count, max(0, start))
        times = (first + np.arange(min(count, total))) / rate
        origin = None if video.format.name == "avi" else stream.start_time
        aspect = float(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)
        aspect = aspect if 0.1 < aspect < 10 else 1.0
        frames, last, time = [], None, 0.0
        for number, frame in enumerate(video.decode(stream)):
            stamp = frame.dts if frame.pts is None else frame.pts
            if stamp is not None:
                origin = stamp if origin is None else origin
            time = number / average_rate(stream) if stamp is None else (stamp - origin) * step
            until = np.searchsorted(times, time - 1e-3)
            if last is not None and until > len(frames):
                frames += [small(last, aspect, how)] * (until - len(frames))
            last = frame
            if len(frames) == len(times):
                break
        if last is None:
            raise ValueError("it has no frames")
        if len(frames) < len(times) and times[-1] - time > 0.5 + 1 / average_rate(stream):
            raise ValueError("it is cut off or damaged")
        frames += [small(last, aspect, how)] * (len(times) - len(frames))
    return np.stack(frames)


def small(frame, aspect, how):
    """One frame, upright and of the model's size."""
    turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
    height, width = frame.height, max(1, round(frame.width * aspect))
    height, width = (width, height) if turns % 2 else (height, width)
    left, top, right, bottom = crop(width, height, how)
    tall = min(1.0, how["size"][0] / (bottom - top))
    wide = min(1.0, how["size"][1] / (right - left))
    if how["keep_aspect"]:
        tall = wide = max(tall, wide)
    size = [max(1, round(height * tall)), max(1, round(width * wide))][:: -1 if turns % 2 else 1]
    pixels = frame.reformat(size[1], size[0], "rgb24").to_ndarray()
    return resized(Image.fromarray(np.rot90(pixels, turns) if turns else pixels), how)
''',
)

_CLIP = ScriptTemplate(
    name="clip_of",
    text='''
def clip_of(samples, rate, start, duration, how, position):
    """The clip at the model's sample rate, with silence where there is no audio."""
    wanted, seconds, channels = how["sample_rate"], how["seconds"], how.get("num_channels", 1)
    given = samples.shape[1]
    if given < channels:
        samples = samples[:, np.arange(channels) % given]
    elif given > channels:
        mixed = [samples[:, one::channels].mean(axis=1) for one in range(channels)]
        samples = np.stack(mixed, axis=1)
    if rate != wanted:
        import soxr

        length = max(1, round(len(samples) * wanted / rate))
        changed = soxr.resample(np.ascontiguousarray(samples), rate, wanted)
        changed = changed if len(changed) else samples[:1]
        samples = np.concatenate([changed, np.repeat(changed[-1:], length, axis=0)])[:length]
    total = max(1, round(duration * wanted))
    count = min(total, max(1, round(seconds * wanted)))
    begin = min(round(position * max(0.0, duration - seconds) * wanted), total - count)
    begin -= round(start * wanted)
    clip, piece = np.zeros((count, samples.shape[1]), np.float32), samples[max(begin, 0) : max(begin + count, 0)]
    clip[max(-begin, 0) :][: len(piece)] = piece
    return clip[:, 0] if how["kind"] == "mel" else clip
''',
)

_READ_AUDIO_TRACK = ScriptTemplate(
    name="read_audio_track",
    uses=(_CLIP, _FRAMES),
    text='''
def read_audio_track(path, how, position):
    """The clip of a container's audio track, on the time line of its frames if there are any."""
    import av

    with av.open(str(path)) as container:
        if not container.streams.audio:
            raise Missing("it has no audio track")
        stream, floats = container.streams.audio[0], av.AudioResampler(format="fltp")
        frames = frames_of(container)
        parts = [part for frame in container.decode(stream) for part in floats.resample(frame)]
        if not parts:
            raise ValueError("it holds no samples")
        samples = np.concatenate([part.to_ndarray() for part in parts], axis=1).T
        rate, start, duration = parts[0].sample_rate, 0.0, None
        if frames is not None:
            step = float(frames.time_base)
            start = float((stream.start_time or 0) * stream.time_base) - (frames.start_time or 0) * step
            duration = seconds_of(path, frames)
        elif "mov" in container.format.name:  # others estimate the length, or round it
            duration = stream.duration and float(stream.duration * stream.time_base)
    duration = len(samples) / rate if duration is None else duration
    return clip_of(samples, rate, start, duration, how, position)
''',
)

READ_AUDIO = ScriptTemplate(
    name="read_audio",
    imports=("soundfile",),
    uses=(_CLIP, _READ_AUDIO_TRACK),
    beside={"video": _READ_AUDIO_TRACK},
    text="""
def read_audio(path, how, position):
    try:
        with soundfile.SoundFile(path) as file:
            is_known = 0 < file.frames < 1 << 62
            samples = file.read(dtype="float32", always_2d=True) if is_known else None
            rate = file.samplerate
    except (soundfile.LibsndfileError, TypeError):
        samples = None
    if samples is None:  # m4a, videos, streams that do not state how long they are
        return read_audio_track(path, how, position)
    return clip_of(samples, rate, 0.0, len(samples) / rate, how, position)
""",
)

READ_POINTS = ScriptTemplate(
    name="read_points",
    imports=("io", "re", "zlib"),
    text='''
def read_points(path, how, position):
    """Points of .npy, .npz or text, x y z first; of more than the model reads, those that perceivers draws."""
    name, most, width = path.lower(), how["num_points"], 3 + how["num_channels"]
    if name.endswith((".npy", ".npz")):
        points = np.load(path)
        if name.endswith(".npz"):
            known = [one for one in ("points", "xyz") if one in points.files]
            if not known and len(points.files) != 1:
                raise ValueError("expected an array called points or xyz")
            points = points[(known or points.files)[0]]
    elif name.endswith((".xyz", ".txt", ".pts", ".asc")):
        points = points_of_text(path)
    else:
        raise ValueError(
            "this script reads .npy, .npz and text (.xyz, .txt, .pts, .asc); "
            "meshes and other formats are read by 'perceivers predict'"
        )
    if points.dtype.str[1:] not in {"f4", "f8"} or not points.dtype.isnative:
        points = points.astype(np.float32 if points.dtype.itemsize <= 2 else np.float64)
    if points.ndim != 2 or points.shape[1] < width or not len(points):
        raise ValueError(f"expected points of {width} numbers, got the shape {points.shape}")
    if not (np.abs(points) <= 1e30).all():
        raise ValueError("some of its points are nan or infinite")
    points = points[:, :width]
    spread = np.ptp(points[:most, :3], axis=0) >= 0.9 * np.ptp(points[:, :3], axis=0)
    if len(points) > most and (len(points) > 4 * most or not spread.all()):
        rng = np.random.default_rng(zlib.crc32(np.ascontiguousarray(points).tobytes()))
        if len(points) > 4 * most:
            points = points[rng.choice(len(points), 4 * most, replace=False)]
        points = rng.permutation(points)
    points = points.astype(np.float64)
    if how["normalize"] != "none":  # exactly, before digits are lost
        points[:, :3] -= points[:, :3].mean(axis=0)
    return points[:most]


def points_of_text(path):
    """Lines of x y z ..., parted by blanks, commas or semicolons; a first line of names or a count is skipped."""
    data = Path(path).read_bytes()
    if data.count(b"\\n") > '''
    + str(MAX_LINES)
    + """:
        raise ValueError("it has too many lines for this script; 'perceivers predict' thins it")
    data = re.sub(rb"#[^\\n]*", b"", data)
    data = data.replace(b",", b".") if has_decimal_commas(data[:65536]) else data
    data = data.translate(bytes.maketrans(b",;\\r", b"  \\n"))
    first = next((line for line in data[:65536].split(b"\\n") if line.strip()), b"")
    if re.match(rb"\\s*(//|[\\"A-Za-z_](?!an\\b|nf)|\\d+\\s*$)", first):
        data = data.replace(first, b"", 1)
    return np.loadtxt(io.BytesIO(data), ndmin=2, comments=None)


"""
    + f"DECIMAL_COMMAS = re.compile({DECIMAL_COMMAS.pattern!r})\n\n\n{inspect.getsource(has_decimal_commas)}",
)

READ_TEXT = ScriptTemplate(
    name="read_text",
    text='''
def read_text(path, how, position):
    """The ids of a file's bytes, or of the given text itself."""
    is_file = len(path) < 250 and Path(path).is_file()
    data, most = Path(path).read_bytes() if is_file else path.encode(), how["max_length"]
    data = data.removeprefix(b"\\xef\\xbb\\xbf")
    if how["marks"] and b"[MASK]" in data:
        parts = [list(part) for part in data.split(b"[MASK]")]
        ids = [number for part in parts for number in [3, *(byte + 6 for byte in part)]][1:]
        return np.array(ids[:most])
    if how["keep"] == "ends" and len(data) > most:
        half = (most - 1) // 2
        tail = whole(data, len(data) - (most - 1 - half), most)
        return np.array([*(byte + 6 for byte in whole(data, 0, half)), 5, *(byte + 6 for byte in tail)])
    begin = round(position * max(0, len(data) - most)) if how["keep"] == "random" else 0
    return np.array([byte + 6 for byte in whole(data, begin, most)])


def whole(data, begin, most):
    """At most so many bytes from a position on, no character cut in two."""
    while 0 < begin < len(data) and data[begin] & 0xC0 == 0x80:
        begin += 1
    end = begin + most
    while end < len(data) and data[end] & 0xC0 == 0x80:
        end -= 1
    return data[begin:end]
''',
)

READ_SERIES = ScriptTemplate(
    name="read_series",
    imports=("csv", "io", "re"),
    text='''
NULLS = set("NA N/A n/a #N/A NaN nan -nan NULL null None none ? -".split()) | {""}
TIME = re.compile(
    r"(time_?stamp|date_?time|time|date|t|ts|elapsed(_time|_seconds)?|seconds_elapsed)s?[ _]*"
    r"[\\[(]?(?P<unit>s|secs?|seconds|m\\w+|us|ns|nano\\w+)?[\\])]?",
    re.IGNORECASE,
)


def read_series(path, how, position):
    """Rows of a CSV file with the channels' names, or of .npy, at the model's rate; NaN where a value is missing."""
    name, times = path.lower(), None
    if name.endswith(".npy"):
        rows = np.load(path).astype(np.float32)
        rows = rows[:, None] if rows.ndim == 1 else rows
    elif name.endswith((".csv", ".tsv")):
        rows, times = rows_of(path, how)
    else:
        raise ValueError("this script reads .csv, .tsv and .npy; other formats are read by 'perceivers predict'")
    if rows.ndim != 2 or rows.shape[1] != len(how["channels"]) or not len(rows):
        raise ValueError(f"expected rows of {len(how['channels'])} channels, got the shape {rows.shape}")
    rows[np.isinf(rows)] = np.nan
    if how["irregular"] and times is None:
        raise ValueError("it has no time stamps, which this model reads")
    if not how["irregular"] and times is not None and how["rate"] is not None:
        rows = resampled(path, rows, times, how["rate"])
    begin, end, since = 0, len(rows), 0.0
    duration = how["duration"]
    if how["irregular"]:
        if duration and times[-1] > duration:
            since = position * (times[-1] - duration)
            begin = min(int(np.searchsorted(times, since)), end - 1)
            end = max(int(np.searchsorted(times, since + duration, side="right")), begin + 1)
    room = end - begin - how["length"]
    if room > 0:
        begin += round(position * room)
        end = begin + how["length"]
        since = times[begin] if how["irregular"] else since
    if not how["irregular"]:
        return rows[begin:end]
    times = times[begin:end] - since
    span = duration or times[-1]
    times = np.clip(times * (2 / span) - 1, -1, 1) if span else times - 1
    return np.concatenate([rows[begin:end], times[:, None]], axis=1, dtype=np.float32)


def rows_of(path, how):
    """The channels of a CSV file, and its times in seconds from zero on; None if it has none or they are not needed."""
    text = Path(path).read_text(encoding="utf-8-sig")
    header = text.partition("\\n")[0]
    mark = max(",;\\t", key=header.count)
    cells = [row for row in csv.reader(io.StringIO(text), delimiter=mark) if row]
    names = [name.strip() for name in cells[0]]
    if all(re.fullmatch(r"\\s*[-+]?(\\d+[.,]?\\d*|[.,]\\d+)([eE][-+]?\\d+)?\\s*", name) for name in names):
        names = [f"f{place}" for place in range(len(names))]  # no header
    else:
        cells = cells[1:]
    if any(len(row) != len(names) for row in cells):
        raise ValueError(f"expected {len(names)} cells in each line")
    absent = [name for name in how["channels"] if name not in names]
    if absent or len(set(names)) < len(names):
        raise ValueError(f"it has no channel '{absent[0]}'" if absent else "two columns have one name")
    has_commas = mark != "," and bool(cells) and any(re.search(r"\\d,\\d", cell) for cell in cells[0])

    def column(name):
        place = names.index(name)
        return np.array([number(row[place], has_commas) for row in cells])

    rows = np.stack([column(name) for name in how["channels"]], axis=1).astype(np.float32)
    found = [(name, TIME.fullmatch(name)) for name in names if name != "T"]
    found = [(name, match["unit"] or "") for name, match in found if match]
    if not found or not (how["irregular"] or how["rate"]):
        return rows, None
    (name, unit), times = found[0], None
    if len(found) == 1 and unit.lower() in {"", "s", "sec", "secs", "seconds"}:
        times = column(name)
    if times is None or not (np.diff(times) > 0).all() or not np.abs(times).max() < 1e11:
        raise ValueError(
            f"this script reads one column of rising times in seconds, not '{name}' as it is here; "
            "'perceivers predict' reads others"
        )
    return rows, times - times[0]


def number(cell, has_commas):
    cell = cell.strip()
    if cell in NULLS:
        return np.nan
    return float(cell.replace(",", ".") if has_commas else cell)


'''
    + f"Values = Times = np.ndarray\nMOST_STEPS = {MOST_STEPS}\n\n\n{inspect.getsource(resampled)}",
)

_HEAD = '''"""Predictions of {model}: python predict.py {usage}

Needs {needs}; not perceivers. preprocess.json describes inputs and outputs.
"""

{imports}

HERE = Path(__file__).parent
MANIFEST = json.loads((HERE / "preprocess.json").read_text(encoding="utf-8"))
'''

_RUN = {
    "onnx": """
session = onnxruntime.InferenceSession(str(HERE / MANIFEST["model"]))


def run(feed):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed)))

""",
    "torch": """
program = torch.export.load(HERE / MANIFEST["model"]).module()


def run(feed):
    with torch.inference_mode():
        found = program({name: torch.from_numpy(array) for name, array in feed.items()})
    return {name: tensor.numpy() for name, tensor in found.items()}

""",
}

_FEED = '''
class Unreadable(ValueError):
    pass


class Missing(ValueError):
    """A file without this modality, as a video without an audio track."""


def feed_of(files, position):
    """Each input, padded to its shape; its mask is True where it is real."""
    feed, modalities = {}, MANIFEST["modalities"]
    for name, how in modalities.items():
        array, mask = np.zeros(how["shape"], how["dtype"]), np.zeros(how["mask"] or 0, bool)
        if name in files:
            try:
                found = READ[how["kind"]](files[name], how, position)
            except Exception as error:  # libraries raise nearly anything for damaged files
                reason = str(error) or type(error).__name__
                if not (isinstance(error, Missing) and how["mask"] and len(modalities) > 1):
                    raise Unreadable(f"Cannot read '{files[name]}': {reason.rstrip('.')}.") from error
                found = array[:0]
            array[: len(found)], mask[: len(found)] = found, True
        feed[name] = array[None]
        if how["mask"]:
            feed[name + "_mask"] = mask[None]
    return dict(sorted(feed.items()))


def files_of(word):
    """image=a.jpg,audio=b.wav is one file for each modality; a path alone is that of all."""
    names = list(MANIFEST["modalities"])
    if word.partition("=")[0] not in names or (len(word) < 250 and Path(word).exists()):
        return dict.fromkeys(names, word)
    files, name = {}, ""
    for part in word.split(","):
        key, equals, value = part.partition("=")
        if equals and key.strip() in names:
            name, files[key.strip()] = key.strip(), value
        else:  # a comma of the path
            files[name] += f",{part}"
    return files

'''

_NAME = '''
VERSION, TOP = {version}, 5  # of the answers; labels that they list


def answer_of(place, word, fields):
    """The answer for one sample, as `perceivers predict --format jsonl` prints it."""
    files = files_of(word)
    given = [files[name] for name in MANIFEST["modalities"] if name in files]
    paths = dict.fromkeys(path for path in given if len(path) < 250 and Path(path).is_file())
    name = " + ".join(paths) or (word if len(word) < 300 else f"item {{place}}")
    return {{"version": VERSION, "name": name, **fields}}


def print_answer(answer):
    text = json.dumps(answer, ensure_ascii=False, allow_nan=False)
    print(text.encode("utf-8", "backslashreplace").decode())


def ranked(labels, shares):
    """All labels and their probabilities, best first."""
    pairs = sorted(zip(labels, shares), key=lambda pair: -pair[1])
    return [{{"label": label, "probability": share}} for label, share in pairs]

'''

_USAGE = """
if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
    print("usage: python predict.py FILE [FILE ...]", file=sys.stderr)
    sys.exit(2 if len(sys.argv) < 2 else 0)
"""

_PRINT_VALUES = '''
def mean_of(clips, how):
    """The mean over clips; of probabilities before their temperature, which the mean then gets, so that it changes no
    label."""
    temperature = how["temperature"]
    if temperature == 1.0 or len(clips) == 1:
        return np.mean(clips, axis=0)[0]
    pairs = np.stack([clip[0].astype(np.float64) for clip in clips])
    if how["threshold"] is not None:  # each label against its absence
        pairs = np.stack([pairs, 1 - pairs], axis=-1)
    for power in (temperature, 1 / temperature):
        pairs = pairs**power
        pairs = (pairs / pairs.sum(axis=-1, keepdims=True)).mean(axis=0, keepdims=True)
    return pairs[0] if how["threshold"] is None else pairs[0, ..., 0]


def fields_of(output, how, values):
    """The fields of one task: its numbers, or its labels and their probabilities."""
    named = dict(zip(how["names"], values))
    if output.endswith("values"):
        return {"task": how["task"], "values": named}
    best, least = ranked(named, values), how["threshold"]
    several = [one["label"] for one in best if least is not None and one["probability"] >= least]
    labels = {} if least is None else {"labels": several}
    return {"task": how["task"], **best[0], **labels, "top": best[:TOP], "probabilities": named}


failed = False
for place, word in enumerate(sys.argv[1:]):
    try:
        feeds = [feed_of(files_of(word), position) for position in MANIFEST["clip_positions"]]
    except Unreadable as error:
        print(error, file=sys.stderr)
        failed = True
        continue
    clips = [run(feed) for feed in feeds]
    tasks = {}
    for output, how in MANIFEST["outputs"].items():
        if how["names"]:
            mean = mean_of([clip[output] for clip in clips], how)
            tasks[how["output"]] = fields_of(output, how, mean.tolist())
    several = {"task": MANIFEST["task"], "tasks": tasks}
    print_answer(answer_of(place, word, tasks.get("", several)))
if failed:
    sys.exit(1)
'''

_PRINT_FILLED_TEXT = '''
def fill(ids, shares):
    """The text as bytes with the most probable byte in each blank, and these bytes."""
    chosen = shares.argmax(axis=1)
    filled = np.where(ids < 6, ord(" "), ids - 6)
    filled[ids == 3] = chosen
    return bytes(filled.astype(np.uint8)), chosen


def byte_name(byte):
    return chr(byte) if 32 <= byte < 127 else f"\\\\x{{byte:02x}}"


failed = False
for place, word in enumerate(sys.argv[1:]):
    try:
        feed = feed_of(files_of(word), 0.5)
    except Unreadable as error:
        print(error, file=sys.stderr)
        failed = True
        continue
    real = feed["{text}_mask"][0]
    ids = feed["{text}"][0][real]
    shares = run(feed)["probabilities"][0][real][ids == 3, 6:]  # of each byte in each blank
    shares = shares / shares.sum(axis=1, keepdims=True)
    data, chosen = fill(ids, shares)
    try:
        text = data.decode()
    except UnicodeDecodeError:  # together no UTF-8: printable ASCII instead
        allowed = np.full(256, -1.0, np.float32)
        allowed[[9, 10, *range(32, 127)]] = 0.0
        data, chosen = fill(ids, shares + 2 * allowed)
        text = data.decode(errors="replace")
    picked = [float(row[byte]) for row, byte in zip(shares, chosen)]
    names = [byte_name(byte) for byte in range(256)]
    blanks = [
        {{"label": names[byte], "probability": p, "top": ranked(names, row.tolist())[:TOP]}}
        for byte, p, row in zip(chosen, picked, shares)
    ]
    mean = sum(picked) / max(len(picked), 1)
    fields = {{"task": MANIFEST["task"], "text": text, "probability": mean, "blanks": blanks}}
    print_answer(answer_of(place, word, fields))
if failed:
    sys.exit(1)
'''

_PACKAGES = {
    "PIL": "Pillow (pillow-heif for HEIC)",
    "soundfile": "soundfile (soxr for other sample rates, av for videos)",
    "av": "av",
}
_STANDARD = {"json", "sys", "csv", "io", "math", "re", "zlib", "from pathlib import Path"}


def script_of(
    manifest: Mapping[str, Any],
    templates: Mapping[str, ScriptTemplate],
    *,
    runtime: str,
    masked_text: str | None = None,
) -> str:
    """Return the source of predict.py for a manifest, with templates by kind of preprocessing.

    `masked_text` is the modality of a text with blanks that are filled. None: outputs with names are printed.
    """
    readers = {
        kind: next((other for name, other in one.beside.items() if name in templates), one)
        for kind, one in templates.items()
    }
    parts = list(dict.fromkeys(_with_uses(readers.values())))
    imports = {"json", "sys", "from pathlib import Path", "numpy"}
    imports |= {"onnxruntime" if runtime == "onnx" else "torch"}
    imports |= {name for part in parts for name in part.imports}
    needs = ["numpy", *(name for name in ("onnxruntime", "torch") if name in imports)]
    roots = {name.removeprefix("from ").split()[0] for name in imports}
    needs += [name for module, name in _PACKAGES.items() if module in roots]
    names = list(manifest["modalities"])
    is_one_file = len(names) == 1 or readers != templates
    head = _HEAD.format(
        model=manifest["model"],
        usage="FILE" if is_one_file else ",".join(f"{name}=FILE" for name in names),
        needs=", ".join(needs),
        imports=f"{_lines(imports & _STANDARD)}\n\n{_lines(imports - _STANDARD)}",
    )
    table = ", ".join(f'"{kind}": {reader.name}' for kind, reader in readers.items())
    body = "".join(f"\n{part.text}\n" for part in parts)
    end = _PRINT_FILLED_TEXT.format(text=masked_text) if masked_text else _PRINT_VALUES
    answer = _NAME.format(version=ANSWER_VERSION)
    return f"{head}{_RUN[runtime]}{body}\nREAD = {{{table}}}\n\n{_FEED}{answer}{_USAGE}{end}"


def _with_uses(templates: Iterable[ScriptTemplate]) -> Iterator[ScriptTemplate]:
    for one in templates:
        yield from _with_uses(one.uses)
        yield one


def _lines(imports: set[str]) -> str:
    """Return sorted lines of imports, `import x` before `from x import y`."""
    whole = sorted(name for name in imports if name.startswith("from "))
    plain = sorted(
        "import numpy as np" if name == "numpy" else f"import {name}"
        for name in imports.difference(whole)
    )
    return "\n".join([*plain, *whole])
