"""Blanks of a text and what is put there."""

import pytest
import torch

from perceivers.tasks.masked import MaskedBytesConfig, filled_texts

MASK = 3


def text_of(text):
    ids = [byte + 6 for byte in text.encode()]
    return torch.tensor([[MASK if i == ord("_") + 6 else i for i in ids]])


def saying(ids, *answers, second=None):
    """Return logits that put these bytes into the blanks, in their order."""
    outputs = torch.zeros(*ids.shape, 262)
    for place, answer in zip((ids[0] == MASK).nonzero()[:, 0], answers, strict=True):
        outputs[0, place, answer + 6] = 9.0
        if second is not None:
            outputs[0, place, second + 6] = 8.0
    return outputs


def test_every_blank_gets_its_most_probable_byte():
    ids = text_of("the ___ sat")
    (found,) = filled_texts(["a"], ids, None, saying(ids, *b"cat", second=ord("r")), top=2)
    assert found.text == "the cat sat"
    assert [blank[0][0] for blank in found.blanks] == ["c", "a", "t"]
    assert [blank[1][0] for blank in found.blanks] == ["r", "r", "r"]
    assert 0.7 < found.probability < 0.75
    assert found.probability == pytest.approx(found.blanks[0][0][1])


def test_padding_and_other_marks_are_no_part_of_the_text():
    ids = torch.cat([text_of("a_"), torch.tensor([[5, 0, 0]])], dim=1)
    mask = torch.tensor([[True, True, True, False, False]])
    (found,) = filled_texts(["a"], ids, mask, saying(ids, ord("b")))
    assert found.text == "ab "


def test_bytes_that_are_no_text_together_become_letters():
    ids = text_of("é__")
    outputs = saying(ids, 0xC3, 0xC3, second=ord("e"))
    (found,) = filled_texts(["a"], ids, None, outputs)
    assert found.text == "éee"
    assert found.blanks[0][0][0] == "\\xc3"
    assert found.probability < 0.3
    (whole,) = filled_texts(["a"], ids, None, saying(ids, 0xC3, 0xA9))
    assert whole.text == "éé"
    # half of a character is there already, and nothing in the blank makes it whole
    broken = torch.tensor([[0xE6 + 6, MASK, ord("a") + 6]])
    (odd,) = filled_texts(["a"], broken, None, saying(broken, 0x00, second=ord("x")))
    assert odd.text == "�xa"


def test_a_text_without_a_blank_is_refused():
    config = MaskedBytesConfig()
    config.check_sample({"text": torch.tensor([MASK])}, "a")
    with pytest.raises(
        ValueError, match=r"'a' has no blank to fill: expected \[MASK\] once for each"
    ):
        config.check_sample({"text": torch.tensor([70, 71])}, "a")
