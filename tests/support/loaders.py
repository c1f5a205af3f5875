"""Small splits and streams for the tests of loaders."""

import numpy as np

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.loading.loader import LoaderSettings, make_loader
from perceivers.data.modalities.image.modality import ImageAugmentConfig, ImagePreprocessConfig
from perceivers.data.streaming.shards import FileShard, scan_file
from perceivers.data.tables.columns import InputColumn
from support.files import png_bytes

INPUTS = {"image": InputColumn("picture", "image")}
PREPROCESS = {
    "image": ImagePreprocessConfig.imagenet(
        size=(6, 6), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), crop_fraction=1.0
    )
}
AUGMENT = {"image": ImageAugmentConfig(crop_scale=(0.2, 1.0))}
MIXING = {"image": ImageAugmentConfig(mixup=0.2, cutmix=True)}


def png(value, side=6):
    """Return an encoded image of noise whose first value is `value`."""
    pixels = np.random.default_rng(value).integers(0, 256, (side, side, 3), dtype=np.uint8)
    pixels[0, 0, 0] = value
    return png_bytes(pixels)


class ImageRows:
    """Records of encoded images, one for each number; None is a damaged one, an exception is raised."""

    def __init__(self, count, damaged=(), raises=None):
        self.cells = [png(index) for index in range(count)]
        for index in damaged:
            self.cells[index] = b"no picture at all"
        self.raises = raises or {}

    def __len__(self):
        return len(self.cells)

    def row(self, index):
        if index in self.raises:
            raise self.raises[index]
        return {"picture": EncodedItem(f"p{index}.png", data=self.cells[index])}

    def column(self, name):
        raise KeyError(name)


def loader_of(records, *, augment=None, targets=True, inputs=INPUTS, **settings):
    labels = [index % 4 for index in range(len(records))] if targets else None
    return make_loader(
        records,
        inputs,
        labels,
        preprocess=PREPROCESS,
        augment=augment,
        settings=LoaderSettings(**{"num_classes": 4, **settings}),
    )


def file_shard(path, fields):
    """Return a file as a shard with these columns."""
    return FileShard(path, fields, scan_file(path).num_rows)
