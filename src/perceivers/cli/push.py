"""`perceivers push`: a run goes to the Hugging Face hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from perceivers.cli.parsing import Switch, parse, wrong_arguments

_EXAMPLES = """
  perceivers push runs/birds somebody/birds --private
  perceivers push runs/birds somebody/birds --dry-run pushed/   look at it first; nothing is sent
"""


@dataclass(frozen=True)
class Options:
    """Upload a run to the Hugging Face hub with a card written from it. Checkpoints, data and paths stay here.

    Attributes:
        run: A run folder that has ended.
        repo: Where it goes on the hub, made if need be.
        private: Only you can see it, where it is new.
        dry_run: A new folder for what would be uploaded. Nothing is sent.
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
        print(f"Nothing was sent. {made} holds what would be pushed to {options.repo}: {names}.")
        return 0
    address = push_to_hub(options.run, options.repo, private=options.private)
    print(f"{options.run} is at {address}. Anyone who may see it: pv.load('{options.repo}').")
    return 0
