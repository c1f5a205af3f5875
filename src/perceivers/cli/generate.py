"""`perceivers generate`: continue texts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from perceivers.cli.parsing import Device, check_numbers, parse, wrong_arguments
from perceivers.cli.terminal import echo

if TYPE_CHECKING:
    from perceivers.evaluation.generation_formats import GenerationFormat, SampleFormat
    from perceivers.models.generate import GenerationConfig

_EXAMPLES = """
  perceivers generate runs/plays --prompt "To be, or not"
  perceivers generate runs/plays --length 1000 --temperature 0.7 --out scene.txt
  perceivers generate runs/plays --prompt-file start.txt --seed 1 --format json
  perceivers generate runs/chorales --prompt start.mid --length 512 --out song.mid
  perceivers generate runs/digits --count 16 --out samples.png
  perceivers generate runs/sales --prompt sales.csv --length 24 --out forecast.png
"""


@dataclass(frozen=True)
class Options:
    """Continue a sequence by a run that was trained to predict the next token: text_ar, music, image_ar, series_ar.

    A text appears as it is generated; music, images and forecasts need --out. Of a too long prompt the end is read.

    Attributes:
        run: A run folder, or a model on the Hugging Face hub.
        prompt: Beginning of the text; a file of music, the first rows of images, or a series. By default none.
        prompt_file: A file with the beginning.
        length: Number of bytes or events, by default 256; `all` for images, which are completed; steps of a series.
        count: Number of images, by default 1; of paths of a series, by default 100.
        quantiles: Quantiles of the paths of a series that are written, by default 0.1 0.5 0.9.
        temperature: Divisor of the logits. 0: always the most probable byte. By default 0.8, of samples 1.
        top_p: Only the most probable bytes whose probabilities add up to this share are drawn.
        top_k: Only so many of the most probable bytes are drawn.
        seed: Seed of the random numbers.
        num_latents: Largest number of latents. By default that of training.
        format: `text`, or `json` with prompt and continuation.
        out: A file for the text, instead of the terminal; `.mid` or `.wav` of music, `.csv` of a forecast, `.png`.
        device: Where to compute. `auto` uses an accelerator if there is one.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    prompt: str | None = None
    prompt_file: Path | None = None
    length: int | Literal["all"] | None = None
    count: Annotated[int | None, tyro.conf.arg(aliases=("--samples",))] = None
    quantiles: tuple[float, ...] = ()
    temperature: float | None = None
    top_p: float = 1.0
    top_k: int | None = None
    seed: int = 0
    num_latents: int | None = None
    format: Literal["text", "json"] = "text"
    out: Path | None = None
    device: Device = "auto"


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options: Options = parse(Options, args, command="generate", examples=_EXAMPLES)
    smallest = {"count": 1, "top_k": 1, "num_latents": 1, "seed": 0}
    check_numbers(
        "generate", options, smallest | ({} if options.length == "all" else {"length": 1})
    )
    if options.prompt is not None and options.prompt_file is not None:
        wrong_arguments("generate", "Expected --prompt or --prompt-file, got both.")
    from perceivers.evaluation.generate import autoregressive_model
    from perceivers.evaluation.generation_formats import SampleFormat, generation_format
    from perceivers.evaluation.predict import load_predictor

    config = _sampling(options, 0.8)
    predictor = load_predictor(options.run, device=options.device)
    autoregressive_model(predictor)  # refuses other runs
    form = generation_format(predictor)
    _check_out(options, form)
    prompt: Any = None
    if options.prompt_file is not None:
        prompt = form.prompt_of_file(options.prompt_file)
    elif options.prompt is not None:
        prompt = form.prompt_of_argument(options.prompt)
    if isinstance(form, SampleFormat):
        return _write_samples(options, form, prompt)
    if options.count is not None or options.quantiles or options.length == "all":
        units = form.vocabulary.units
        wrong_arguments(
            "generate",
            "--count, --quantiles and --length all are for images and series, and this run was trained on "
            f"{units}: expected a number of them, --length 500.",
        )
    return _continue(options, form, prompt, config)


def _continue(
    options: Options, form: "GenerationFormat", prompt: Any, config: "GenerationConfig"
) -> int:
    """Continue one sequence, print or write it, and return the exit status."""
    from perceivers.evaluation.generate import generate_tokens, is_cut
    from perceivers.evaluation.generation_formats import DEFAULT_LENGTH

    begun = form.tokens(prompt)
    if is_cut(form.predictor, begun):
        echo(
            "perceivers generate: the prompt is longer than the context; its end is read.", err=True
        )
    length = DEFAULT_LENGTH if options.length in (None, "all") else options.length
    rows = generate_tokens(form.predictor, [begun], length=length, config=config)
    found = (row[0] for row in rows)
    if options.out is None and options.format == "text":
        echo(form.prompt_text(begun), end="")
        for part in form.printed(begun, found):
            echo(part, end="")
        echo("")
        return 0
    return _write(options, form, begun, list(found))


def _write_samples(options: Options, form: "SampleFormat", prompt: Any) -> int:
    """Draw samples, write them or print them as JSON, and return the exit status."""
    from perceivers.evaluation.generation_formats import SampleSettings

    try:
        settings = SampleSettings(
            length=options.length,
            count=options.count,
            quantiles=options.quantiles,
            config=_sampling(options, 1.0),
        )
    except ValueError as error:
        wrong_arguments("generate", str(error))
    samples = form.sample(prompt, settings)
    if options.format == "json":
        return _write_json(options, form.samples_json(samples), "Samples")
    assert options.out is not None
    echo(f"{form.save(samples, options.out)} in {options.out}", err=True)
    return 0


def _sampling(options: Options, temperature: float) -> "GenerationConfig":
    """Return the settings of sampling; end the command if a number is out of range."""
    from perceivers.models.generate import GenerationConfig

    try:
        return GenerationConfig(
            temperature=temperature if options.temperature is None else options.temperature,
            top_p=options.top_p,
            top_k=options.top_k,
            seed=options.seed,
            num_latents=options.num_latents,
        )
    except ValueError as error:
        wrong_arguments("generate", str(error))


def _write(
    options: Options, form: "GenerationFormat", prompt: Sequence[int], found: Sequence[int]
) -> int:
    """Write the result to a file, or print it as JSON, and return the exit status."""
    if options.format == "json":
        size = f"{len(found):,} {form.vocabulary.units}"
        return _write_json(options, form.as_json(prompt, found), size)
    assert options.out is not None
    echo(f"{form.write(prompt, found, options.out)} in {options.out}", err=True)
    return 0


def _write_json(options: Options, result: dict[str, Any], size: str) -> int:
    """Write a result as JSON, or print it, and return the exit status."""
    from perceivers.data.base import atomic_write_text

    text = json.dumps(result, ensure_ascii=False, indent=2)
    if options.out is None:
        echo(text)
        return 0
    atomic_write_text(options.out, f"{text}\n")
    echo(f"{size} in {options.out}", err=True)
    return 0


def _check_out(options: Options, form: "GenerationFormat") -> None:
    """End the command if the result cannot be written where it shall be."""
    if options.format == "json":
        return
    if options.out is None and not form.is_printable:
        known = " or ".join(form.suffixes)
        wrong_arguments(
            "generate",
            f"Expected --out with a file that ends in {known}, or --format json; got neither.",
        )
    if options.out is not None:
        try:
            form.check_path(options.out)
        except ValueError as error:
            wrong_arguments("generate", str(error))
