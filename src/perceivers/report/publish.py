"""A run goes to the Hugging Face hub: what others need to use it, with a card, and nothing else."""

import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter

from perceivers.data.base import DataConfig
from perceivers.hub.checkpoint import CONFIG_FILE, WEIGHTS_FILE, SavedConfig
from perceivers.recipes.files import write_recipe
from perceivers.report.model_card import model_card, without_place
from perceivers.runs.folder import RECIPE_FILE
from perceivers.runs.record import read_run

__all__ = ["prepare_push", "push_to_hub"]

_PICTURES = ("curves.png", "confusion*.png")


def push_to_hub(folder: str | Path, repo_id: str, *, private: bool = False) -> str:
    """Upload a run to the Hugging Face hub and return its address.

    `config.json`, `model.safetensors`, `recipe.yaml`, the pictures of the report, and a card (`README.md`) written from
    the run travel. Checkpoints, the optimizer's state, data, logs and paths of the machine that trained do not. The
    token is huggingface_hub's: `hf auth login`, or HF_TOKEN.

    Args:
        folder: A run folder, ended.
        repo_id: `user/name` on the hub. Made if it does not exist.
        private: Whether only you can see a new one.

    Raises:
        OSError: If the folder is no run that has ended, or the hub cannot be reached or refuses.
        ValueError: If `repo_id` is no name of the hub, or a file of the run is something else than it should be.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import validate_repo_id

    if repo_id.count("/") != 1:
        msg = f"Expected USER/NAME, where the model goes on the Hugging Face hub; got '{repo_id}'."
        raise ValueError(msg)
    validate_repo_id(repo_id)
    with tempfile.TemporaryDirectory(prefix="perceivers-push-") as temporary:
        made = prepare_push(folder, Path(temporary) / "model", repo_id=repo_id)
        try:
            api = HfApi()
            api.create_repo(repo_id, private=private, exist_ok=True)
            return str(
                api.upload_folder(
                    repo_id=repo_id, folder_path=made, commit_message="Upload by perceivers"
                )
            )
        except Exception as error:  # the hub's errors share no base class
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            msg = (
                f"{folder} could not be pushed to {repo_id} on the Hugging Face hub: {reason} Log in with "
                "`hf auth login` (or set HF_TOKEN to a token that may write), and look whether the hub can be reached "
                "from here. `--dry-run FOLDER` writes what would be pushed."
            )
            raise OSError(msg) from error


def prepare_push(folder: str | Path, out: str | Path, *, repo_id: str | None = None) -> Path:
    """Write what `push_to_hub` uploads into a folder, and return it.

    Args:
        folder: A run folder, ended.
        out: The folder to write, new or empty.
        repo_id: Where it is going to be, for the card.

    Raises:
        OSError: If the folder is no run that has ended, or `out` is not empty or cannot be written.
        ValueError: If a file of the run is something else than it should be.
    """
    past, out = read_run(folder), Path(out)
    if past.saved is None or past.state != "ended":
        msg = f"{folder} is {past.state}. Only what has ended can be pushed: go on with `perceivers fit --resume`."
        raise OSError(msg)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        msg = f"{out} is not empty. Expected a new folder for what would be pushed."
        raise OSError(msg)
    out.mkdir(parents=True, exist_ok=True)
    config = TypeAdapter(SavedConfig).dump_json(_without_places(past.saved), indent=2)
    (out / CONFIG_FILE).write_bytes(config + b"\n")
    shutil.copyfile(past.folder / WEIGHTS_FILE, out / WEIGHTS_FILE)
    card = model_card(past, repo_id)
    if past.recipe is not None:
        write_recipe(replace(past.recipe, data=_shared(past.recipe.data)), out / RECIPE_FILE)
        for picture in sorted(path for name in _PICTURES for path in past.folder.glob(name)):
            shutil.copyfile(picture, out / picture.name)
            words = "Curves of training" if picture.stem == "curves" else "Confusion on validation"
            card += f"\n![{words}]({picture.name})\n"
    (out / "README.md").write_text(card, encoding="utf-8")
    return out


def _without_places(saved: SavedConfig) -> SavedConfig:
    """Return what is saved with a model, without where its data lay."""
    columns = dict(saved.columns)
    columns["data"] = None
    if isinstance(columns.get("config"), dict):
        known = DataConfig(**cast("dict[str, Any]", columns["config"]))
        columns["config"] = asdict(_shared(known))
    return replace(saved, columns=columns)


def _shared(data: DataConfig) -> DataConfig:
    """Return how data were read, without places on the machine that did."""
    changed = {
        name: without_place(value)
        for name, value in asdict(data).items()
        if isinstance(value, str) and without_place(value) != value
    }
    return replace(data, **{**changed, "cache": None})
