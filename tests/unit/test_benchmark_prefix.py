"""Losses of a run by the length of the prefix."""

import torch
from benchmarks.prefix import losses, main

from perceivers.evaluation.predict import load_predictor
from support.models import save_generating


def test_every_byte_is_measured_once(tmp_path, capsys):
    run = save_generating(tmp_path / "run")
    predictor = load_predictor(run)
    text = b"the cat sat on the mat and looked at the other cat. " * 3
    each = losses(predictor, text, 8)
    assert each.shape == (len(text),)
    assert bool(each.isfinite().all())
    # A prefix that is longer than the text has no effect.
    whole = losses(predictor, text[:20], 1000)
    torch.testing.assert_close(losses(predictor, text[:20], 20), whole)
    path = tmp_path / "text.txt"
    path.write_bytes(text)
    assert main([str(run), str(path), "--prefixes", "8", "2"]) == 0
    first, second = capsys.readouterr().out.splitlines()[1:]
    assert first.endswith("+0.0000 +- 0.0000")
    assert not second.endswith("+0.0000 +- 0.0000")
    assert main([str(run), str(path), "--prefixes", "49"]) == 2
    assert "Expected --prefixes from 0 to 48" in capsys.readouterr().out
