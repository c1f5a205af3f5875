"""The suffixes in the documentation are those that are registered."""

import re
from pathlib import Path

import pytest

from perceivers.data.registry import list_modalities

DATA = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
MODALITIES = [spec for spec in list_modalities() if spec.suffixes]


@pytest.mark.parametrize("spec", MODALITIES, ids=[spec.name for spec in MODALITIES])
def test_the_suffixes_of_a_modality_are_documented(spec):
    row = re.search(rf"^\| (`\w+`, )*`{spec.name}` .*$", DATA, re.MULTILINE)
    assert row is not None
    lists = [words.split() for words in re.findall(r"`([^`]*)`", row[0])]
    assert list(spec.suffixes) in lists
