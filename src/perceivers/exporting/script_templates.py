"""How files of each kind are read without perceivers: pieces of the script that is written beside exported models."""

from dataclasses import dataclass

__all__ = ["READERS", "SHARED", "Snippet"]


@dataclass(frozen=True, kw_only=True)
class Snippet:
    """A function of the script.

    Attributes:
        name: Of the function.
        text: Its source.
        imports: Modules that it needs, or whole lines `from x import y`.
        uses: Names of shared functions that it calls.
    """

    name: str
    text: str
    imports: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()


_CROP = '''
def crop(width, height, how):
    """The box of a picture that is shown: left, top, right, bottom."""
    if not how["keep_aspect"]:
        return 0, 0, width, height
    aspect = how["size"][1] / how["size"][0]
    wide = min(width, height * aspect) * how["crop_fraction"]
    across, down = min(width, max(1, round(wide))), min(height, max(1, round(wide / aspect)))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def shown(image, how):
    """The pixels that the model sees: height x width x channels."""
    height, width = how["size"]
    box = crop(image.width, image.height, how)
    pixels = np.array(image.resize((width, height), Image.Resampling.BICUBIC, box=box))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
'''

_IMAGE = """
def read_image(path, how, moment):
    image = Image.open(path)
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        clear = upright.convert("RGBA")
        upright = Image.new("RGB", clear.size, "white")
        upright.paste(clear, mask=clear.getchannel("A"))
    return shown(upright.convert("L" if how["num_channels"] == 1 else "RGB"), how)
"""

_VIDEO = '''
def read_video(path, how, moment):
    """The frames on screen at even times of the clip that lies at the moment (0 the first, 1 the last)."""
    (height, width), rate, count = how["size"], how["frame_rate"], how["num_frames"]
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        step = float(stream.time_base)
        seconds = stream.duration * step if stream.duration else film.duration / 1e6
        total, first = max(1, math.ceil(seconds * rate - 1e-3)), 0
        if count < total:
            start = math.floor(moment * max(0.0, seconds - count / rate) * rate + 0.5)
            first = min(total - count, max(0, start))
        times = (first + np.arange(min(count, total))) / rate
        origin = None if film.format.name == "avi" else stream.start_time
        aspect = float(stream.sample_aspect_ratio or 1)
        frames, last = [], None
        for frame in film.decode(stream):
            stamp = frame.dts if frame.pts is None else frame.pts
            origin = stamp if origin is None else origin
            until = np.searchsorted(times, (stamp - origin) * step - 1e-3)
            if last is not None and until > len(frames):
                frames += [small(last, aspect, how)] * (until - len(frames))
            last = frame
            if len(frames) == len(times):
                break
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
    return shown(Image.fromarray(np.rot90(pixels, turns) if turns else pixels), how)
'''

_CLIP = '''
def clip_of(samples, rate, start, duration, how, moment):
    """The clip at the moment (0 the first, 1 the last), at the model's rate; silence where there is no sound."""
    wanted, seconds = how["sample_rate"], how["seconds"]
    if how.get("num_channels", 1) == 1:
        samples = samples.mean(axis=1, keepdims=True)
    if rate != wanted:
        import soxr

        samples = soxr.resample(np.ascontiguousarray(samples), rate, wanted)
    total = max(1, round(duration * wanted))
    count = min(total, max(1, round(seconds * wanted)))
    begin = min(round(moment * max(0.0, duration - seconds) * wanted), total - count)
    begin -= round(start * wanted)
    clip, piece = np.zeros((count, samples.shape[1]), np.float32), samples[max(begin, 0) : max(begin + count, 0)]
    clip[max(-begin, 0) :][: len(piece)] = piece
    return clip[:, 0] if how["kind"] == "mel" else clip
'''

_SOUND = """
def read_sound(path, how, moment):
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:  # m4a, films, ...
        return read_sound_of_film(path, how, moment)
    return clip_of(samples, rate, 0.0, len(samples) / rate, how, moment)
"""

_TRACK = '''
def read_sound_of_film(path, how, moment):
    """The sound track, on the time line of the pictures; a file without pictures is sound alone."""
    import av

    with av.open(str(path)) as film:
        stream, floats = film.streams.audio[0], av.AudioResampler(format="fltp")
        pictures = film.streams.video[0] if film.streams.video else None
        parts = [part for frame in film.decode(stream) for part in floats.resample(frame)]
        samples = np.concatenate([part.to_ndarray() for part in parts], axis=1).T
        rate, start, duration = stream.rate, 0.0, samples.shape[0] / stream.rate
        if pictures is not None:
            step = float(pictures.time_base)
            start = float((stream.start_time or 0) * stream.time_base) - (pictures.start_time or 0) * step
            duration = pictures.duration * step if pictures.duration else film.duration / 1e6
    return clip_of(samples, rate, start, duration, how, moment)
'''

_POINTS = '''
def read_points(path, how, moment):
    """Points of .npy, .npz or text, x y z first; of more than the model reads, those that perceivers draws."""
    name, most = str(path), how["num_points"]
    points = np.load(path) if name.endswith((".npy", ".npz")) else np.loadtxt(path, ndmin=2)
    if name.endswith(".npz"):
        points = points["points"] if "points" in points else points[points.files[0]]
    points = points[:, : 3 + how["num_channels"]]
    spread = np.ptp(points[:most, :3], axis=0) >= 0.9 * np.ptp(points[:, :3], axis=0)
    if len(points) > most and (len(points) > 4 * most or not spread.all()):
        chance = np.random.default_rng(zlib.crc32(np.ascontiguousarray(points).tobytes()))
        if len(points) > 4 * most:
            points = points[chance.choice(len(points), 4 * most, replace=False)]
        points = chance.permutation(points)
    points = points.astype(np.float64)
    if how["normalize"] != "none":  # exactly, before digits are lost
        points[:, :3] -= points[:, :3].mean(axis=0)
    return points[:most]
'''

_TEXT = '''
def read_text(path, how, moment):
    """The numbers of a file's bytes, or of the words themselves."""
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
    begin = round(moment * max(0, len(data) - most)) if how["keep"] == "random" else 0
    return np.array([byte + 6 for byte in whole(data, begin, most)])


def whole(data, begin, most):
    """At most so many bytes from a place on, no character cut in two."""
    while 0 < begin < len(data) and data[begin] & 0xC0 == 0x80:
        begin += 1
    end = begin + most
    while end < len(data) and data[end] & 0xC0 == 0x80:
        end -= 1
    return data[begin:end]
'''

_SERIES = '''
def read_series(path, how, moment):
    """Rows of a CSV file with the channels' names, or of .npy, at the model's rate; NaN where a value is missing."""
    if str(path).endswith(".npy"):
        rows, times = np.load(path).astype(np.float32), None
    else:
        with open(path, newline="", encoding="utf-8") as file:
            cells = list(csv.DictReader(file))
        rows = np.array([[float(row[name] or "nan") for name in how["channels"]] for row in cells], np.float32)
        times = [float(row[name]) for row in cells for name in row if name.lower().startswith("time")]
    begin, end, since = 0, len(rows), 0.0
    duration = how["duration"]
    if how["irregular"]:
        times = np.array(times) - times[0]
        if duration and times[-1] > duration:
            since = moment * (times[-1] - duration)
            begin = min(int(np.searchsorted(times, since)), end - 1)
            end = max(int(np.searchsorted(times, since + duration, side="right")), begin + 1)
    room = end - begin - how["length"]
    if room > 0:
        begin += round(moment * room)
        end = begin + how["length"]
        since = times[begin] if how["irregular"] else since
    if not how["irregular"]:
        return rows[begin:end]
    times = times[begin:end] - since
    span = duration or times[-1]
    times = np.clip(times * (2 / span) - 1, -1, 1) if span else times - 1
    return np.concatenate([rows[begin:end], times[:, None]], axis=1, dtype=np.float32)
'''

_PILLOW = ("from PIL import Image",)
_FILM = ("av", "math", "from PIL import Image")

SHARED = {
    "crop": Snippet(name="crop", text=_CROP, imports=_PILLOW),
    "clip_of": Snippet(name="clip_of", text=_CLIP),
    "track": Snippet(name="read_sound_of_film", text=_TRACK),
}
"""Functions that readers of several kinds call."""

_FILE = Snippet(name="read_sound", text=_SOUND, imports=("soundfile",), uses=("clip_of", "track"))
_OF_FILM = Snippet(name="read_sound_of_film", text=_TRACK, uses=("clip_of",))

READERS = {
    "image": Snippet(
        name="read_image", text=_IMAGE, imports=("from PIL import Image, ImageOps",), uses=("crop",)
    ),
    "video": Snippet(name="read_video", text=_VIDEO, imports=_FILM, uses=("crop",)),
    "wave": _FILE,
    "mel": _FILE,
    "wave of a film": _OF_FILM,
    "mel of a film": _OF_FILM,
    "points": Snippet(name="read_points", text=_POINTS, imports=("zlib",)),
    "text": Snippet(name="read_text", text=_TEXT),
    "series": Snippet(name="read_series", text=_SERIES, imports=("csv",)),
}
"""What reads a file of each kind: path, how it is prepared and the moment -> the array of what is real."""
