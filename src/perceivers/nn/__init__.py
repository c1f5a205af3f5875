"""Blocks that know no modality: attention, position encodings, patches."""
