"""One package per modality: decode, preprocess, augment and collate."""
