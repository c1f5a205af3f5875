"""`perceivers pretrain`: `perceivers fit` with the recipe `mae` or `hip_mae`, on data without labels."""

from collections.abc import Sequence

from perceivers.cli import fit


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    return fit.run(args, command="pretrain", recipes=("mae", "hip_mae"))
