from dataclasses import replace

import pytest
import torch

from perceivers.inputs.elements import Elements
from perceivers.inputs.fusion import Fusion, FusionConfig

WIDTHS = {"audio": 3, "video": 5}


def segments(count=4):
    return {
        "audio": Elements(torch.ones(count, 6, 3)),
        "video": Elements(torch.ones(count, 2, 5)),
    }


def dropping(shares, **options):
    return Fusion(FusionConfig(modality_dropout=shares, **options), WIDTHS).train()


def test_every_modality_gets_the_width_of_the_widest_and_four_more():
    fusion = Fusion(FusionConfig(), WIDTHS)
    found = fusion(segments())
    assert fusion.channels == 9
    assert {name: part.num_channels for name, part in found.items()} == {"audio": 9, "video": 9}
    assert {name: tag.shape[0] for name, tag in fusion.modality_embeddings.items()} == {
        "audio": 6,
        "video": 4,
    }
    # one vector for a modality, the same for all of its elements
    assert torch.equal(found["audio"].dense()[2, 5, 3:], fusion.modality_embeddings["audio"])


def test_nothing_is_dropped_outside_of_training():
    fusion = dropping({"video": 0.9}).eval()
    assert all(part.mask is None for part in fusion(segments()).values())


def test_a_modality_is_dropped_in_its_share_of_the_samples():
    torch.manual_seed(0)
    found = dropping({"video": 0.3})(segments(4000))
    there = found["video"].mask
    assert there.shape == (4000, 2)
    assert torch.equal(there[:, 0], there[:, 1])
    assert (~there[:, 0]).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert found["audio"].mask.all()


def test_a_sample_never_loses_all_that_it_has():
    torch.manual_seed(0)
    fusion = dropping({"video": 0.8, "audio": 0.8})
    found = fusion(segments(2000))
    left = found["video"].mask.any(dim=1) | found["audio"].mask.any(dim=1)
    assert left.all()
    parts = segments(2000)
    parts["audio"] = replace(parts["audio"], mask=torch.zeros(2000, 6, dtype=torch.bool))
    found = fusion(parts)
    assert found["video"].mask.all()  # it is all that these samples have
    assert not found["audio"].mask.any()


def test_the_papers_way_zeroes_what_was_sensed_and_keeps_its_place():
    torch.manual_seed(0)
    found = dropping({"video": 0.5}, dropped="zeroed")(segments(100))["video"]
    assert found.mask is None
    assert set(found.content.flatten(1).mean(dim=1).tolist()) == {0.0, 1.0}


def test_a_learned_vector_stands_for_what_is_dropped_or_missing():
    torch.manual_seed(0)
    fusion = dropping({"video": 0.5}, dropped="token")
    found = fusion(segments(100))
    assert found["video"].mask.all()
    dense = found["video"].dense()
    hidden = found["video"].masked.where[:, 0]
    assert 0 < hidden.sum() < 100
    assert (dense[hidden] == fusion.tokens["video"]).all()
    assert (dense[~hidden][..., :5] == 1.0).all()
    sum(part.dense().sum() for part in found.values()).backward()
    assert not fusion.tokens["audio"].grad.any()  # it stands nowhere, and is not waited for

    parts = segments(3)
    there = torch.tensor([True, False, True])
    parts["audio"] = replace(parts["audio"], mask=there[:, None].expand(-1, 6))
    audio = fusion.eval()(parts)["audio"]
    assert audio.mask.all()
    assert (audio.dense()[1] == fusion.tokens["audio"]).all()
    assert (audio.dense()[[0, 2]][..., :3] == 1.0).all()


def test_settings_without_meaning_are_refused():
    with pytest.raises(ValueError, match="min_padding must be at least 1, got 0"):
        FusionConfig(min_padding=0)
    with pytest.raises(
        ValueError, match=r"modality_dropout of 'video' must lie in \[0, 1\), got 1"
    ):
        FusionConfig(modality_dropout={"video": 1.0})
    with pytest.raises(ValueError, match="names 'vido', but the modalities are audio, video"):
        dropping({"vido": 0.1})
