"""The Perceiver family in PyTorch: one architecture that reads any kind of input.

Names are imported when they are first used, so that `import perceivers` costs nothing.
"""
