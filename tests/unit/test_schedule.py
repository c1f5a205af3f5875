import math

import pytest

from perceivers.recipes.registry import OptimConfig
from perceivers.training.optim import learning_rate
from perceivers.wording import parse_duration


def rates(config, steps=100):
    return [learning_rate(config, progress=s / steps, step=s) for s in range(steps)]


def test_constant_stays():
    assert set(rates(OptimConfig(schedule="constant", lr=0.1))) == {0.1}


def test_steps_divide_at_each_milestone_exactly():
    # The paper's: 120 epochs, a tenth at 84, 102 and 114.
    milestones = (84 / 120, 102 / 120, 114 / 120)
    config = OptimConfig(schedule="steps", lr=4e-3, milestones=milestones, decay=0.1)
    by_epoch = rates(config, steps=120)
    assert by_epoch[83] == pytest.approx(4e-3)
    assert by_epoch[84] == pytest.approx(4e-4)
    assert by_epoch[102] == pytest.approx(4e-5)
    assert by_epoch[114] == pytest.approx(4e-6)


def test_cosine_falls_from_the_rate_to_zero():
    config = OptimConfig(schedule="cosine", lr=2.0)
    assert learning_rate(config, progress=0.0, step=0) == 2.0
    assert learning_rate(config, progress=0.5, step=5) == pytest.approx(1.0)
    assert learning_rate(config, progress=1.0, step=10) == pytest.approx(0.0)
    assert learning_rate(config, progress=1.5, step=15) == pytest.approx(0.0)


def test_constant_cosine_stays_and_then_falls():
    config = OptimConfig(schedule="constant_cosine", lr=1.0, constant_fraction=0.5)
    found = [learning_rate(config, progress=p, step=0) for p in (0.0, 0.5, 0.75, 1.0)]
    assert found == pytest.approx([1.0, 1.0, 0.5, 0.0])


def test_the_releases_warm_up_begins_at_zero_and_its_cosine_after_it():
    """optax.warmup_cosine_decay_schedule: s / w, then half a cosine of (s - w) / (total - w)."""
    config = OptimConfig(schedule="warmup_cosine", lr=2.0, warmup_steps=20)
    expected = [2 * s / 20 for s in range(20)]
    expected += [1 + math.cos(math.pi * (s - 20) / 80) for s in range(20, 100)]
    assert rates(config) == pytest.approx(expected)
    share = OptimConfig(schedule="warmup_cosine", lr=2.0, warmup_fraction=0.2)
    assert rates(share) == pytest.approx(expected)
    without = OptimConfig(schedule="warmup_cosine", lr=2.0)
    assert rates(without) == pytest.approx(rates(OptimConfig(schedule="cosine", lr=2.0)))
    only = OptimConfig(schedule="warmup_cosine", lr=2.0, warmup_steps=200)
    assert rates(only) == pytest.approx([s / 100 for s in range(100)])


def test_warm_up_in_steps_reaches_the_rate():
    config = OptimConfig(schedule="constant", lr=1.0, warmup_steps=4)
    assert rates(config)[:6] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])


def test_warm_up_as_a_share_rises_with_progress():
    config = OptimConfig(schedule="constant", lr=1.0, warmup_fraction=0.1)
    assert learning_rate(config, progress=0.05, step=999) == pytest.approx(0.5)


def test_the_longer_warm_up_holds():
    config = OptimConfig(schedule="constant", lr=1.0, warmup_steps=2, warmup_fraction=0.5)
    assert learning_rate(config, progress=0.25, step=25) == pytest.approx(0.5)


def test_the_rate_is_a_function_of_progress_whatever_limits_the_run():
    config = OptimConfig(schedule="cosine", lr=1.0)
    assert learning_rate(config, progress=0.3, step=3) == learning_rate(
        config, progress=0.3, step=3000
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("45s", 45), ("10m", 600), ("2h", 7200), ("1h30m", 5400), (" 1.5H ", 5400)],
)
def test_durations_are_read(text, seconds):
    assert math.isclose(parse_duration(text), seconds)


@pytest.mark.parametrize("text", ["", "ten minutes", "10x", "0m", "-5m", "m10", "1d"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="Expected a duration such as 45s, 10m, 2h or 1h30m, got"):
        parse_duration(text)
