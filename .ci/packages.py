"""Refuse packages that must not come into the environment by the back door.

PyPI's torchvision, torchaudio and newer torchcodec are CUDA builds. Beside a CPU build of torch they
make `import torchmetrics` and `import lightning` fail, so no dependency may pull them in. CUDA's own
packages belong beside a CUDA build of torch only.
"""

import sys
from importlib.metadata import distributions

import torch

names = {d.metadata["Name"].lower().replace("_", "-") for d in distributions()}
forbidden = names & {"torchvision", "torchaudio", "torchcodec", "timm"}
if torch.version.cuda is None:
    forbidden |= {n for n in names if n.startswith("nvidia-")}
if forbidden:
    sys.exit(
        f"Installed, and must not be: {', '.join(sorted(forbidden))}. Which dependency pulled it in?"
    )
print(f"{len(names)} packages, none of the forbidden ones.")
