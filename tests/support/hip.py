"""Models of the Hierarchical Perceiver's test vectors, which the original code has written in float64."""

from perceivers.hub.hip import hip_from_weights
from perceivers.models.hip_config import HiPConfig, hip_blocks
from support.perceiver_ar import part, read

_FIELDS = {
    "num_groups": "num_groups",
    "num_self_attends": "num_self_attends_per_block",
    "num_latents": "z_index_dim",
    "channels": "num_z_channels",
    "num_cross_attend_heads": "num_cross_attend_heads",
    "num_self_attend_heads": "num_self_attend_heads",
    "cross_attend_widening_factor": "cross_attend_widening_factor",
    "self_attend_widening_factor": "self_attend_widening_factor",
}


def config_of(given):
    """Return the architecture of a file's configuration."""
    given = {"num_groups": 1} | given
    sizes = {
        ours: tuple(given[name]) if isinstance(given[name], list) else (given[name],)
        for ours, name in _FIELDS.items()
    }
    train = given.get("processor_index_dim_train")
    if train is not None:
        middle = len(sizes["num_groups"]) // 2
        sizes["num_train_latents"] = tuple(
            train if i == middle else None for i in range(len(sizes["num_groups"]))
        )
    return HiPConfig(
        blocks=hip_blocks(**sizes),
        embed_channels=given["num_embedding_channels"],
        regroup=given.get("regroup_type", "reshape"),
        project_positions="num_position_encoding_channels" in given,
        drop_path=given.get("drop_path_rate", 0.0),
    )


def hip_model(name):
    """Return the model of a file in evaluation mode, its tensors, and the sizes of its modalities."""
    found, facts = read(name)
    given = facts["config"]
    labels = given.get("label_modalities", [])
    sizes = {name: tuple(found[f"input.{name}"].shape[1:]) for name in facts["input_order"]}
    modalities = {name: size for name, size in sizes.items() if name not in labels}
    model = hip_from_weights(
        config_of(given),
        part(found, "weight."),
        modalities,
        labels={name: sizes[name] for name in labels},
    )
    return model.eval(), found, modalities


def released_latents(model, latents, *, is_perceiver_io):
    """Return the latents as the release cuts them: by the plan of the inputs."""
    plan = model.trunk.plan
    if is_perceiver_io:
        found, begin = {}, 0
        for name, size in plan.parts.items():
            found[name] = latents[:, 0, begin : begin + size.count]
            begin += size.count
        return found
    found, begin = {}, 0
    for name, size in plan.parts.items():
        groups = latents[:, begin : begin + size.groups]
        cut = plan.rows - size.rows
        groups = groups[:, :, : groups.shape[2] - cut] if cut else groups
        rows = groups.flatten(1, 2)
        missing = size.groups * size.rows - size.count
        found[name] = rows[:, : rows.shape[1] - missing]
        begin += size.groups
    return found
