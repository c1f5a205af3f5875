"""Functions of predict.py that read points, text and series, as those of `script_media`."""

import inspect

from perceivers.data.modalities.points.decode import (
    DECIMAL_COMMAS,
    MAX_LINES,
    has_decimal_commas,
)
from perceivers.data.modalities.series.augment import MOST_STEPS, resampled
from perceivers.exporting.script_template import ScriptTemplate

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
