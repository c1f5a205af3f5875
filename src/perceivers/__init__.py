"""The Perceiver family in PyTorch: one architecture for any kind of input.

    import perceivers as pv

    run = pv.fit("birds/", max_time="10m")
    pv.evaluate(run.folder)
    pv.load(run.folder).predict("robin.jpg")

The public names are listed in `__init__.pyi`. Each is imported when it is first used: `import perceivers` alone does
not import torch, and only `pv.fit` imports the training engine.
"""

from importlib.metadata import version

import lazy_loader

__version__ = version("perceivers")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
