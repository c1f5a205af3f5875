"""Generation of music: MIDI files as prompts and results."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.music.events import Tokens, decode_events
from perceivers.data.modalities.music.modality import MusicPreprocessConfig, read_music
from perceivers.data.modalities.music.score import SUFFIXES, MusicScore, Note, one_part
from perceivers.evaluation.generation_formats import GenerationFormat, register_format


class MusicFormat(GenerationFormat):
    """MIDI files as prompts; the result is the prompt with its continuation, as a `MusicScore`."""

    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES
    media_types: ClassVar[Mapping[str, str]] = {"mid": "audio/midi", "png": "image/png"}

    def check_path(self, path: Path) -> None:
        """Check the suffix, and of a WAV file that a note can be synthesized.

        Raises:
            OSError: If the synthesizer fails.
            ValueError: If the suffix is another one, or the synthesizer is missing.
        """
        super().check_path(path)
        if path.suffix.lower() == ".wav":
            with TemporaryDirectory() as folder:
                one_part([Note(0, 0.1, 60, 64)]).save(Path(folder, "note.wav"))

    @cached_property
    def preprocess(self) -> MusicPreprocessConfig:
        """Preprocessing of the run, by which prompts are read."""
        task: Any = self.predictor.config.task
        return self.predictor.preprocess[task.modality]

    def prompt_of_argument(self, argument: str) -> Path:
        """Return the path that `--prompt` states."""
        return Path(argument)

    def prompt_of_file(self, path: Path) -> Path:
        """Return the path."""
        return path

    def tokens(self, prompt: str | PathLike[str] | bytes | MusicScore | Tokens | None) -> list[int]:
        """Return the events of a MIDI file, given as a path, as bytes or already read. None and "" are empty.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it is no MIDI file, is cut short, or holds no notes. The message names it.
        """
        if prompt is None or (isinstance(prompt, str) and not prompt):
            return []
        if isinstance(prompt, str | PathLike):
            item = EncodedItem(str(prompt), path=Path(prompt))
        elif isinstance(prompt, bytes):
            item = EncodedItem("the prompt", data=prompt)
        else:
            item = EncodedItem("the prompt", value=prompt)
        return read_music(item, self.preprocess).tolist()

    def result(self, prompt: Sequence[int], found: Sequence[int]) -> MusicScore:
        """Return the prompt with its continuation."""
        return decode_events([*prompt, *found])

    def as_json(self, prompt: Sequence[int], found: Sequence[int]) -> dict[str, Any]:
        """Return all events, the number of those of the prompt, and the notes with their times in seconds."""
        notes = [note._asdict() for note in self.result(prompt, found).notes]
        return {"prompt_events": len(prompt), "events": [*prompt, *found], "notes": notes}

    def write(self, prompt: Sequence[int], found: Sequence[int], path: Path) -> str:
        """Write the prompt with its continuation as a MIDI file, as audio, or as an image of its notes."""
        score = self.result(prompt, found)
        score.save(path)
        return f"{len(score.notes):,} notes of {score.seconds:.1f} s"


register_format("midi", MusicFormat)
register_format("midi_windows", MusicFormat)
