"""Import of packages that are installed by extras."""

import importlib
from typing import Any


def require(module: str, extra: str | None) -> Any:
    """Import an optional module.

    Args:
        module: Name of the module.
        extra: Extra of this package that installs it. None: no extra does.

    Raises:
        ImportError: If it is not installed. The message names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        package = f'"perceivers[{extra}]"' if extra else name
        raise ImportError(
            f"{name} is needed for this. Install it: pip install {package}"
        ) from error
