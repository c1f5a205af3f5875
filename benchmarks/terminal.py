"""Record `fit`, `predict`, `evaluate` and `compare` in a terminal of 80 columns, for docs/terminal.md.

python -m benchmarks.terminal [FILE]    docs/terminal.md by default; about three minutes on two CPU cores
"""

import fcntl
import os
import pty
import re
import shutil
import struct
import sys
import tempfile
import termios
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
COLUMNS, ROWS = 80, 24

_PAGE = """\
# The terminal

`fit`, `predict`, `evaluate` and `compare` in a terminal of {columns} columns: 1,798 files of scikit-learn's handwritten
digits, one of them broken, 2,000 files to predict, and a table of 300 rows (scikit-learn's breast cancer). The page is
the output of `python -m benchmarks.terminal`.

The last line, the bar, is redrawn in place and vanishes at the end. It always fits the width: the least important
fields are left out first. The rows of validations stay, with the 95 % confidence interval of the main metric. In a log
file, a pipe or a terminal that cannot draw (`TERM=dumb`) the same rows appear without a bar, and a line of progress
every half minute. `NO_COLOR` turns colors off; `--no-progress` leaves only notes.

## fit, while it runs

{fit_running}

## fit, at the end

{fit_done}

## predict, during the work

{predict_running}

## predict, at the end

{predict_done}

## evaluate

{evaluate_done}

## fit of a small table

Few rows are divided into folds, each with a table of validations.

{table_done}

## compare

Runs that do not fit side by side are printed below.

{compare_done}
"""

_CONTROL = re.compile(r"\x1b\[(\??\d*(?:;\d+)*)([A-Za-z])|\r|\n|[^\x1b\r\n]+|\x1b")


@dataclass
class Screen:
    """The lines of a terminal, for the control sequences that a progress bar uses."""

    lines: list[str] = field(default_factory=lambda: [""])
    row: int = 0
    column: int = 0

    def feed(self, text: str) -> None:
        """Apply output to the screen."""
        for found in _CONTROL.finditer(text):
            token, number, letter = found[0], found[1], found[2]
            if token == "\r":
                self.column = 0
            elif token == "\n":
                self.row += 1
            elif letter == "A":
                self.row = max(self.row - int(number or 1), 0)
            elif letter == "K" and number == "2":
                self.lines[self.row] = ""
            elif letter is None and token != "\x1b":
                self._write(token)
            while self.row >= len(self.lines):
                self.lines.append("")

    def _write(self, text: str) -> None:
        for start in range(0, len(text), COLUMNS):
            part = text[start : start + COLUMNS]
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + part + line[self.column + len(part) :]
            self.column += len(part)

    def text(self) -> str:
        """Return the content of the screen as a fenced block."""
        content = "\n".join(line.rstrip() for line in self.lines).strip("\n")
        return f"```text\n{content}\n```"


def record(command: str, folder: Path) -> tuple[list[tuple[float, str]], int]:
    """Run a command in a terminal; return its output with the seconds at which each part arrived, and its status."""
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        os.chdir(folder)
        environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        arguments = [sys.executable, "-m", *command.split()]
        os.execve(sys.executable, arguments, {**environment, "TERM": "xterm-256color"})
    start, parts = time.monotonic(), list[tuple[float, str]]()
    while True:
        try:
            data = os.read(terminal, 2**16)
        except OSError:  # the process has ended
            break
        if not data:
            break
        parts.append((time.monotonic() - start, data.decode("utf-8", "replace")))
    os.close(terminal)
    return parts, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def screen_at(command: str, parts: list[tuple[float, str]], share: float) -> str:
    """Return the screen after a share of the parts of the output."""
    screen = Screen()
    screen.feed(f"$ {command}\r\n")
    for _, text in parts[: max(round(len(parts) * share), 1)]:
        screen.feed(text)
    return screen.text()


def make_files(folder: Path) -> None:
    """Write the digits as a folder of classes, with one broken file, 2,000 files to predict, and a table."""
    from PIL import Image
    from sklearn.datasets import load_breast_cancer, load_digits

    digits = load_digits()
    for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / "digits" / str(label) / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15.9).astype("uint8")).save(path)
    (folder / "digits" / "3" / "broken.png").write_bytes(b"nothing")
    rows = load_breast_cancer(as_frame=True).frame.sample(300, random_state=0)
    rows["target"] = rows["target"].map({0: "malignant", 1: "benign"})
    rows.to_csv(folder / "cancer.csv", index=False)
    (folder / "new").mkdir()
    files = sorted((folder / "digits").glob("[0-9]/[0-9]*.png"))
    for index in range(2000):
        shutil.copy(files[index % len(files)], folder / "new" / f"{index:04d}.png")


def main(out: Path) -> None:
    """Write the page."""
    commands = {
        "fit": "perceivers fit digits --max-epochs 6 --out runs/digits",
        "predict": "perceivers predict runs/digits new --format csv --out predictions.csv",
        "evaluate": "perceivers evaluate runs/digits",
        "table": "perceivers fit cancer.csv --label target --max-epochs 4 --out runs/cancer",
        "compare": "perceivers compare runs/digits runs/cancer",
    }
    shown: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        make_files(Path(name))
        for title, command in commands.items():
            parts, status = record(command, Path(name))
            if status:
                raise SystemExit("".join(text for _, text in parts))
            parts = [(at, text.replace(f"{name}/", "")) for at, text in parts]
            shown[f"{title}_running"] = screen_at(command, parts, 0.4)
            shown[f"{title}_done"] = screen_at(command, parts, 1.0)
    out.write_text(_PAGE.format(columns=COLUMNS, **shown), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "terminal.md")
