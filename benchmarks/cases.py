"""Every case, with its targets."""

import itertools
from collections.abc import Iterator

from benchmarks import reads, wholes
from benchmarks.autoregressive import autoregressive_cases
from benchmarks.hierarchical import hierarchical_cases
from benchmarks.models import huggingface_io, lucidrains, ours_2021, ours_io, plain_2021
from benchmarks.setting import FULL, Case, Contestant, Target
from benchmarks.training_steps import step_cases
from benchmarks.wholes import checkpointed, forward, mlp_checkpointed, step

__all__ = ["CASES", "find"]

KINDS = ((False, "forward"), (True, "forward + backward"))


def faster(than: str, at_least: float | None = None, stretch: float | None = None) -> Target:
    """Return the target of having so many times the speed of another contestant."""
    description = f"times the speed of {than}"
    return Target(description=description, of=than, to="ours", at_least=at_least, stretch=stretch)


def suffix(name: str, backward: bool) -> str:
    """Return the name of a case."""
    return f"{name}-{'step' if backward else 'forward'}"


def read_cases() -> Iterator[Case]:
    """Yield the reads that are compared with projected keys and values."""
    pixels = "one read of 224 x 224 single pixels (N = 512, C = 261)"
    scenes = (
        ("read", reads.image(), pixels, 8.0, 10.0, 0.0),
        ("read-512", reads.image(0), "the same of 512 x 512", None, None, 4.0),
        (
            "audiovisual",
            reads.audiovisual(),
            "one read of 12,544 video patches and 4,800 mel bins (C = 487)",
            2.0,
            None,
            0.0,
        ),
    )
    for name, scene, what, at_least, stretch, gib in scenes:
        for backward, kind in KINDS:
            yield Case(
                name=suffix(name, backward),
                what=f"{what}, {kind}",
                contestants=readers(scene, backward, gib),
                targets=(
                    faster("plain", at_least, stretch),
                    Target(
                        description="times the speed of absorbed reading without the grid",
                        of="absorbed",
                        to="ours",
                    ),
                ),
            )
    learning = (
        ("read-content", reads.image(learns=True), f"{pixels} that get gradients"),
        ("read-stem", reads.stem(), "one read of a convolved stem's 56 x 56 cells (C = 322)"),
        (
            "audiovisual-tags",
            reads.audiovisual(learns=True),
            "the read of video patches and mel bins, whose tags get gradients",
        ),
    )
    for name, scene, what in learning:
        yield Case(
            name=suffix(name, backward=True),
            what=f"{what}, forward + backward",
            contestants=readers(scene, True, 0.0),  # noqa: FBT003
            targets=(faster("plain"),),
        )


def clip_cases() -> Iterator[Case]:
    """Yield the read of a whole clip, which the paper had to cut into patches."""
    yield Case(
        name="clip-forward",
        what="one read of 32 x 224 x 224 single pixels (1.6 M elements, C = 390), forward",
        contestants=readers(reads.clip(), False, 13.0)[:2],  # noqa: FBT003
        targets=(faster("plain", 15.0),),
    )
    yield Case(
        name="clip-step",
        what="the same, forward + backward, which the formulas have no memory for",
        contestants=(Contestant(name="ours", build=reads.ours(reads.clip(), backward=True)),),
        targets=(
            Target(
                description="MiB over model and input",
                of="ours",
                quantity="over_mib",
                at_most=200.0,
            ),
        ),
    )


def readers(scene: reads.Scene, backward: bool, gib: float) -> tuple[Contestant, ...]:
    """Return the ways to read a scene; `gib` is what the projected ones need."""
    return (
        Contestant(name="ours", build=reads.ours(scene, backward=backward)),
        Contestant(name="plain", build=reads.plain(scene, backward=backward), gib=gib),
        Contestant(
            name="absorbed", build=reads.ours(scene, backward=backward, path="absorbed"), gib=gib
        ),
        Contestant(
            name="plain-padded",
            build=reads.plain(scene, backward=backward, pad=True),
            gib=gib,
            devices=("cuda",),
        ),
    )


def growth_cases() -> Iterator[Case]:
    """Yield cases of growing image sides, for the growth of time and memory."""
    sides = FULL.larger_sides
    for backward, kind in KINDS:
        contestants = tuple(
            Contestant(
                name=str(side), build=reads.ours(reads.image(i), backward=backward), same=False
            )
            for i, side in enumerate(sides)
        )
        times = tuple(
            Target(
                description=f"times the time of {small} x {small} at {large} x {large}",
                of=str(large),
                to=str(small),
                at_most=4.5,
            )
            for small, large in itertools.pairwise(sides)
        )
        memory = tuple(
            Target(
                description=f"MiB over model and input at {side} x {side}",
                of=str(side),
                quantity="over_mib",
                at_most=200.0,
            )
            for side in sides[1:]
        )
        yield Case(
            name=suffix("growth", backward),
            what=f"one read of larger images, up to 4.2 M single pixels, {kind}",
            contestants=contestants,
            targets=times + memory,
        )


def model_cases() -> Iterator[Case]:
    """Yield the whole 2021 model."""
    padded = wholes.plain_padded
    yield Case(
        name="model-forward",
        what="the 2021 ImageNet model (8 reads, 44.9 M weights), batch 1, forward",
        contestants=(
            Contestant(name="ours", build=forward(ours_2021)),
            Contestant(name="plain", build=forward(plain_2021)),
            Contestant(name="plain-kept", build=forward(wholes.plain_kept)),
            Contestant(name="plain-padded", build=forward(padded), devices=("cuda",)),
            Contestant(name="products", build=wholes.products, same=False),
        ),
        targets=(
            Target(
                description="times the bare matrix products of its latent transformer",
                of="ours",
                to="products",
                at_most=1.6,
                stretch=1.45,
            ),
            faster("plain", 1.75),
            faster("plain-kept"),
        ),
    )
    yield Case(
        name="model-step",
        what="the 2021 ImageNet model, batch 1, training step",
        contestants=(
            Contestant(name="ours", build=step(ours_2021)),
            Contestant(name="checkpointed", build=step(checkpointed(ours_2021))),
            Contestant(name="plain", build=step(plain_2021)),
            Contestant(name="plain-kept", build=step(wholes.plain_kept)),
            Contestant(name="plain-padded", build=step(padded), devices=("cuda",)),
        ),
        targets=(
            faster("plain", 1.9),
            of_memory("ours", "plain", 0.65),
            Target(
                description="times the speed of plain, recomputing activations",
                of="plain",
                to="checkpointed",
                at_least=1.4,
            ),
            of_memory("checkpointed", "plain", 1 / 3),
            faster("plain-kept"),
            of_memory("ours", "plain-kept"),
        ),
    )


def other_model_cases() -> Iterator[Case]:
    """Yield the 2021 model beside what is not the same work."""
    yield Case(
        name="lucidrains-forward",
        what="the 2021 model and perceiver-pytorch's nearest (229 M weights), batch 1, forward",
        contestants=(
            Contestant(name="ours", build=forward(ours_2021)),
            Contestant(name="lucidrains", build=forward(lucidrains), same=False),
        ),
        targets=(faster("lucidrains"), of_memory("ours", "lucidrains")),
    )
    yield Case(
        name="int8-forward",
        what="the 2021 ImageNet model with weights of 8 bits, batch 1, forward",
        contestants=(
            Contestant(name="ours", build=forward(ours_2021)),
            Contestant(name="int8", build=forward(wholes.int8), same=False),
        ),
        targets=(
            Target(description="times the speed in float32", of="ours", to="int8", at_least=1.4),
            of_memory("int8", "ours"),
        ),
        devices=("cpu",),
        float32_only=True,
    )


def of_memory(of: str, to: str, at_most: float | None = None) -> Target:
    """Return the target of needing at most such a part of another's peak, process and all."""
    description = f"of the peak memory of {to}" + ("" if of == "ours" else f", {of}")
    return Target(description=description, of=of, to=to, quantity="peak_mib", at_most=at_most)


def io_cases() -> Iterator[Case]:
    """Yield Perceiver IO on ImageNet."""
    what = "Perceiver IO on ImageNet with Fourier positions (48.4 M weights), batch 1"
    rival = "huggingface"
    yield Case(
        name="io-forward",
        what=f"{what}, forward",
        contestants=(
            Contestant(name="ours", build=forward(ours_io)),
            Contestant(name=rival, build=forward(huggingface_io)),
        ),
        targets=(faster(rival, 1.0), of_memory("ours", rival)),
    )
    yield Case(
        name="io-step",
        what=f"{what}, training step",
        contestants=(
            Contestant(name="ours", build=step(ours_io)),
            Contestant(name="mlp-checkpointed", build=step(mlp_checkpointed(ours_io))),
            Contestant(name=rival, build=step(huggingface_io)),
        ),
        targets=(
            faster(rival, 1.0),
            of_memory("ours", rival, 0.65),
            Target(
                description=f"times the speed of {rival}, recomputing norms, GELU and MLP",
                of=rival,
                to="mlp-checkpointed",
            ),
            of_memory("mlp-checkpointed", rival, 0.5),
        ),
    )


def recipe_cases() -> Iterator[Case]:
    """Yield the shipped recipes that a CPU runs in a moment: speeds, no rivals."""
    for backward, kind in KINDS:
        work = step if backward else forward
        yield Case(
            name=suffix("recipes", backward),
            what=f"shipped recipes, batch 64 (small: 16), {kind}",
            contestants=tuple(
                Contestant(name=name, build=work(wholes.of_recipe(name), recipe.batch), same=False)
                for name, recipe in wholes.RECIPES.items()
            ),
        )


CASES: tuple[Case, ...] = (
    *read_cases(),
    *clip_cases(),
    *growth_cases(),
    *model_cases(),
    *other_model_cases(),
    *io_cases(),
    *recipe_cases(),
    *step_cases(),
    *autoregressive_cases(),
    *hierarchical_cases(),
)


def find(patterns: list[str]) -> list[Case]:
    """Return the cases whose names begin with one of the patterns; without patterns, all.

    Raises:
        KeyError: If a pattern names none.
    """
    for pattern in patterns:
        if not any(case.name.startswith(pattern) for case in CASES):
            names = ", ".join(case.name for case in CASES)
            msg = f"Expected the beginning of a case's name, got {pattern!r}. There are: {names}."
            raise KeyError(msg)
    return [c for c in CASES if not patterns or c.name.startswith(tuple(patterns))]
