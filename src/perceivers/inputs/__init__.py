"""From a modality's tensor to elements: one file for each modality."""
