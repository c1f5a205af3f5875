"""Music as audio by the synthesizer FluidSynth, where it is installed."""

import shutil
import subprocess
import wave
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

_SAMPLE_RATE = 44_100
_SILENCE = 8  # largest sample of 16 bits without a SoundFont: that of the dither


def write_wav(midi: bytes, path: Path, *, is_silent: bool = False) -> None:
    """Write a MIDI file as a WAV file of 44.1 kHz in stereo, with FluidSynth's default SoundFont.

    Args:
        midi: Content of the MIDI file.
        path: The WAV file.
        is_silent: Whether it has no notes, so that silence is right.

    Raises:
        OSError: If FluidSynth fails, or has no SoundFont.
        ValueError: If it is not installed.
    """
    program = shutil.which("fluidsynth")
    if program is None:
        raise ValueError(
            "WAV files of music are written by the program FluidSynth, which is not installed: expected a file that "
            "ends in .mid. Or install FluidSynth and a SoundFont (apt install fluidsynth, brew install fluid-synth)."
        )
    with TemporaryDirectory() as folder:
        source, wav = Path(folder, "music.mid"), Path(folder, "music.wav")
        source.write_bytes(midi)
        options = ["-n", "-i", "-q", "-T", "wav", "-r", str(_SAMPLE_RATE), "-F", str(wav)]
        done = subprocess.run(
            [program, *options, str(source)], capture_output=True, text=True, check=False
        )
        if done.returncode or not wav.is_file() or not (is_silent or _has_signal(wav)):
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            reason = f" ({lines[-1]})" if lines else ""
            raise OSError(
                f"FluidSynth wrote no audio{reason}. Expected it with a SoundFont, as in the package "
                "fluid-soundfont-gm; or write a file that ends in .mid."
            )
        shutil.copyfile(wav, path)


def _has_signal(path: Path) -> bool:
    """Return whether a WAV file of 16 bits is more than silence."""
    with wave.open(str(path)) as audio:
        samples = np.frombuffer(audio.readframes(audio.getnframes()), np.int16)
    return bool(samples.size) and int(np.abs(samples.astype(np.int32)).max()) > _SILENCE
