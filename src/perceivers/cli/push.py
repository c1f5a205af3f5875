"""`perceivers push`: upload a run to the Hugging Face Hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from perceivers.cli.parsing import Switch, parse, wrong_arguments
from perceivers.cli.terminal import echo

_EXAMPLES = """
  perceivers push runs/birds somebody/birds --private
  perceivers push runs/birds somebody/birds --dry-run pushed/   write the files only
"""


@dataclass(frozen=True)
class Options:
    """Upload a run to the Hugging Face Hub with a model card. Checkpoints, data and paths are not uploaded.

    Attributes:
        run: A run folder, ended.
        repo: Repository on the hub, created if need be.
        private: Make a new repository private.
        dry_run: Write the files into this new folder instead of uploading them.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    repo: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="USER/NAME")]
    private: Switch = False
    dry_run: Path | None = None


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options: Options = parse(Options, args, command="push", examples=_EXAMPLES)
    if options.repo.count("/") != 1:
        wrong_arguments("push", f"Expected USER/NAME behind the run, got '{options.repo}'.")
    from perceivers.report.publish import prepare_push, push_to_hub

    if options.dry_run is not None:
        made = prepare_push(options.run, options.dry_run, repo_id=options.repo)
        names = ", ".join(sorted(path.name for path in made.iterdir()))
        echo(
            f"Nothing was sent. {made} holds what would be pushed to {options.repo}: {names}.",
            wrap=True,
        )
        return 0
    address = push_to_hub(options.run, options.repo, private=options.private)
    echo(f"{options.run} is at {address}. Load it with pv.load('{options.repo}').")
    return 0
