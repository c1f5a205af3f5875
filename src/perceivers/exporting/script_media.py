"""Functions of predict.py that read images, videos and audio.

Each takes a path, the preprocessing and the position of the clip (0 the first, 1 the last), and returns an array
without padding. Files that it would read otherwise than perceivers are refused. Functions that need only NumPy or
Pillow are copied from perceivers.
"""

import inspect

from perceivers.data.modalities.image.decode import to_eight_bit, to_mode
from perceivers.exporting.script_template import ScriptTemplate

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
