import os

import numpy as np
import pytest

from perceivers.data.loading.sample_cache import ImageCache, open_image_cache
from support.loaders import ImageRows

PICTURE = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


def test_what_was_put_comes_back():
    cache = ImageCache(3, (2, 2, 3))
    assert cache.get(1) is None
    cache.put(1, PICTURE)
    np.testing.assert_array_equal(cache.get(1), PICTURE)
    assert cache.get(0) is None
    assert cache.get(2) is None


def test_other_shapes_are_not_kept():
    cache = ImageCache(1, (2, 2, 1))
    cache.put(0, PICTURE)
    assert cache.get(0) is None


def test_a_forked_process_shares_it():
    cache = ImageCache(2, (2, 2, 3))
    child = os.fork()
    if child == 0:
        cache.put(1, PICTURE)
        os._exit(0)
    os.waitpid(child, 0)
    np.testing.assert_array_equal(cache.get(1), PICTURE)


@pytest.mark.parametrize(("largest", "fits"), [(5 * (6 * 6 * 3 + 1), True), (5 * 6 * 6 * 3, False)])
def test_it_is_made_only_if_all_pictures_fit(largest, fits):
    cache = open_image_cache(ImageRows(5), "picture", num_channels=3, largest=largest)
    assert (cache is not None) == fits


def test_a_damaged_first_row_is_passed_over():
    def shape(**options):
        cache = open_image_cache(ImageRows(3, **options), "picture", num_channels=1, largest=1000)
        return cache and cache.shape

    assert shape(damaged=(0,)) == (6, 6, 1)
    assert shape(damaged=(0, 1, 2)) is None
