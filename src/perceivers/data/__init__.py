"""Data: files, folders, tables and shards become batches. Importing it registers the modalities of this package."""

import perceivers.data.modalities as _  # noqa: F401
