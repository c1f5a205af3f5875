"""A model in the forms that run without this library: ONNX, torch.export, safetensors.

The package can be called: `pv.export(run, path)` is `perceivers.exporting.write.export`, also after a module of it
was imported, which makes `perceivers.exporting` the package.
"""

import sys
from types import ModuleType
from typing import Any


class _CallableModule(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from perceivers.exporting.write import export

        return export(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
