"""predict.py beside an exported model: reads files, prepares them and prints predictions, without perceivers.

The script is put together from templates; those that read files are in `script_media` and `script_values`.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from perceivers.exporting.script_template import ScriptTemplate
from perceivers.tasks.prediction import ANSWER_VERSION

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
    "openvino": """
settings = {"INFERENCE_PRECISION_HINT": "f32"}
model = openvino.Core().compile_model(str(HERE / MANIFEST["model"]), "CPU", settings)


def run(feed):
    found = model(feed)
    return {name: found[port] for port in model.outputs for name in port.names}

""",
    "torch": """
program = torch.export.load(HERE / MANIFEST["model"]).module()


def run(feed):
    with torch.inference_mode():
        found = program({name: torch.from_numpy(array) for name, array in feed.items()})
    return {name: tensor.numpy() for name, tensor in found.items()}

""",
}

# Without it, onnxruntime prints a warning for each constant in float16 that it does not fold.
_QUIET = "\nonnxruntime.set_default_logger_severity(3)\n"

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
_RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}
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
    imports |= {_RUNTIMES[runtime]}
    imports |= {name for part in parts for name in part.imports}
    needs = ["numpy", *(name for name in _RUNTIMES.values() if name in imports)]
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
    quiet = _QUIET if (runtime, manifest["precision"]) == ("onnx", "float16") else ""
    return f"{head}{quiet}{_RUN[runtime]}{body}\nREAD = {{{table}}}\n\n{_FEED}{answer}{_USAGE}{end}"


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
