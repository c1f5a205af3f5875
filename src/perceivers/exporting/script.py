"""predict.py beside an exported model: what of a file is read, prepared and said, without perceivers."""

from collections.abc import Mapping, Sequence
from typing import Any

from perceivers.exporting.script_templates import READERS, SHARED

__all__ = ["SCRIPTED_TASKS", "script_of", "unscripted"]

SCRIPTED_TASKS = ("classification", "multilabel", "regression", "masked_bytes", "multitask")

_HEAD = '''"""What {model} says of files: python predict.py {usage}

Needs {needs}; not perceivers. All that it knows stands in preprocess.json.
"""

{imports}

HERE = Path(__file__).parent
TOLD = json.loads((HERE / "preprocess.json").read_text(encoding="utf-8"))
'''

_RUN = {
    "onnx": """
session = onnxruntime.InferenceSession(str(HERE / TOLD["model"]))


def run(feed):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed)))

""",
    "torch": """
program = torch.export.load(HERE / TOLD["model"]).module()


def run(feed):
    with torch.inference_mode():
        found = program({name: torch.from_numpy(array) for name, array in feed.items()})
    return {name: tensor.numpy() for name, tensor in found.items()}

""",
}

_FEED = '''
def feed_of(files, moment):
    """Each input, padded to its shape; the mask says what of it is real."""
    feed = {}
    for name, how in TOLD["modalities"].items():
        array, mask = np.zeros(how["shape"], how["dtype"]), np.zeros(how["mask"] or 0, bool)
        if name in files:
            found = READ[how["kind"]](files[name], how, moment)
            array[: len(found)], mask[: len(found)] = found, True
        feed[name] = array[None]
        if how["mask"]:
            feed[name + "_mask"] = mask[None]
    return feed


def files_of(word):
    """image=a.jpg,audio=b.wav names one file for each modality; a path alone is that of all."""
    if "=" in word and not Path(word).exists():
        return dict(pair.split("=", 1) for pair in word.split(","))
    return dict.fromkeys(TOLD["modalities"], word)

'''

_SAY = """
for word in sys.argv[1:]:
    feeds = [feed_of(files_of(word), moment) for moment in TOLD["moments"]]
    clips = [run(feed) for feed in feeds]
    said = {"file": word}
    for output, how in TOLD["outputs"].items():
        if how["names"]:
            mean = np.mean([clip[output] for clip in clips], axis=0)[0]
            said[output] = dict(zip(how["names"], mean.tolist()))
    print(json.dumps(said, ensure_ascii=False))
"""

_FILL = """
for word in sys.argv[1:]:
    feed = feed_of(files_of(word), 0.5)
    ids, mask = feed["{text}"][0], feed["{text}_mask"][0]
    shares = run(feed)["probabilities"][0, :, 6:]  # what is said of the bytes at each place
    filled = np.where(ids == 3, shares.argmax(axis=1), ids - 6)[mask]
    blanks = shares[(ids == 3) & mask].max(axis=1).tolist()
    text = bytes(filled.clip(0, 255).astype(np.uint8)).decode(errors="replace")
    print(json.dumps({{"file": word, "text": text, "probabilities": blanks}}, ensure_ascii=False))
"""


def unscripted(task: str, kinds: Sequence[str]) -> str | None:
    """Return why there is no script for a task and modalities of some kinds; None if there is one."""
    if task not in SCRIPTED_TASKS:
        return (
            f"there is no predict.py for the task '{task}': the graph gives the model's outputs, and preprocess.json "
            "says what it reads"
        )
    unknown = [kind for kind in kinds if kind not in READERS]
    if unknown:
        return (
            f"there is no predict.py for inputs of kind '{unknown[0]}': the graph takes them as perceivers prepares "
            "them, which config.json says"
        )
    return None


def script_of(told: Mapping[str, Any], *, runtime: str, task: str) -> str:
    """Return the script, as text.

    Args:
        told: What stands in preprocess.json.
        runtime: `onnx` or `torch`.
        task: Its kind, one of `SCRIPTED_TASKS`.
    """
    modalities: Mapping[str, Any] = told["modalities"]
    readers = {how["kind"]: READERS[how["kind"]] for how in modalities.values()}
    if "video" in readers and {"mel", "wave"} & set(readers):
        for kind in {"mel", "wave"} & set(readers):
            readers[kind] = READERS[f"{kind} of a film"]
    shared = list(dict.fromkeys(name for reader in readers.values() for name in reader.uses))
    imports = {"json", "sys", "from pathlib import Path", "numpy"}
    imports |= {"onnxruntime" if runtime == "onnx" else "torch"}
    parts = [*(SHARED[name] for name in shared), *readers.values()]
    imports |= {name for part in parts for name in part.imports}
    usage = " ".join(["FILE"] if len(modalities) == 1 or _one_file(readers) else [_pairs(told)])
    head = _HEAD.format(
        model=told["model"], usage=usage, needs=_needs(imports), imports=_imports(imports)
    )
    table = ", ".join(f'"{kind}": {reader.name}' for kind, reader in readers.items())
    body = "".join(f"\n{part.text}\n" for part in parts)
    said = _SAY
    if task == "masked_bytes":
        said = _FILL.format(text=next(iter(modalities)))
    return f"{head}{_RUN[runtime]}{body}\nREAD = {{{table}}}\n\n{_FEED}{said}"


def _one_file(readers: Mapping[str, Any]) -> bool:
    return any(reader.name.endswith("of_film") for reader in readers.values())


def _pairs(told: Mapping[str, Any]) -> str:
    return ",".join(f"{name}=FILE" for name in told["modalities"])


_PACKAGES = {
    "PIL": "Pillow",
    "soundfile": "soundfile (soxr for other sample rates, av for films)",
    "av": "av",
}


def _needs(imports: set[str]) -> str:
    found = ["numpy"]
    found += [name for name in ("onnxruntime", "torch") if name in imports]
    roots = {name.removeprefix("from ").split()[0] for name in imports}
    found += [package for module, package in _PACKAGES.items() if module in roots]
    return ", ".join(found)


def _imports(names: set[str]) -> str:
    """Return the lines of imports: the standard library first."""
    standard = {"json", "sys", "csv", "math", "zlib", "from pathlib import Path"}

    def line(name: str) -> str:
        if name == "numpy":
            return "import numpy as np"
        return name if name.startswith("from ") else f"import {name}"

    def lines(group: set[str]) -> str:
        plain = sorted(line(name) for name in group if not name.startswith("from "))
        return "\n".join([*plain, *sorted(name for name in group if name.startswith("from "))])

    return f"{lines(names & standard)}\n\n{lines(names - standard)}"
