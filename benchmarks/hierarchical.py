"""Hierarchical Perceiver: a training step of HiP-16 beside the two earlier models on the same image."""

from dataclasses import replace
from typing import Any

from benchmarks.models import Rival, config_2021, ours_2021, ours_io, seeded
from benchmarks.setting import Case, Contestant, Setting, Target
from benchmarks.wholes import step
from perceivers.inputs.image import PixelInputConfig
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.outputs.heads import LinearHeadConfig
from perceivers.recipes.hip import own_hip
from perceivers.recipes.published.hip import hip_16

__all__ = ["hierarchical_cases"]


def config_hip(setting: Setting) -> PerceiverConfig:
    """Return HiP-16 as a classifier in the sizes of the setting."""
    recipe, sizes = hip_16(), setting.sizes
    output: Any = recipe.output
    label = replace(output.outputs["label"], head=LinearHeadConfig(num_outputs=sizes.num_classes))
    return replace(
        config_2021(setting),
        inputs={"image": PixelInputConfig(size=(sizes.side, sizes.side), positions=None)},
        encoder=own_hip("tiny") if setting.smoke else recipe.encoder,
        output=replace(output, outputs={"label": label}),
    )


def ours_hip(setting: Setting) -> Rival:
    """Return this library's HiP-16."""
    model: Any = seeded(lambda: build(config_hip(setting))).to(setting.device)
    return Rival(model=model, call=lambda image: model({"image": image}))


def hierarchical_cases() -> list[Case]:
    """Return a training step of 224 x 224 pixels."""
    earlier = {"imagenet": ours_2021, "imagenet_io": ours_io}
    return [
        Case(
            name="hip-step",
            what="HiP-16 up to its middle block on ImageNet (95.3 M weights), batch 1, training step",
            contestants=(
                Contestant(name="ours", build=step(ours_hip), same=False),
                *(
                    Contestant(name=name, build=step(model), same=False)
                    for name, model in earlier.items()
                ),
            ),
            targets=tuple(
                target
                for name in earlier
                for target in (
                    Target(description=f"times the speed of {name}", of=name, to="ours"),
                    Target(
                        description=f"of the peak memory of {name}",
                        of="ours",
                        to=name,
                        quantity="peak_mib",
                    ),
                )
            ),
        )
    ]
