import pytest

from perceivers.tasks.classification import ClassificationConfig, ClassificationTask
from perceivers.training.callback import _is_better

TASK = ClassificationTask(ClassificationConfig(label_names=("ant", "bee")))


@pytest.mark.parametrize(
    ("new", "old", "better"),
    [
        ((0.5, 9.0), None, True),
        ((0.6, 9.0), (0.5, 1.0), True),
        ((0.4, 0.1), (0.5, 1.0), False),
        ((0.5, 0.9), (0.5, 1.0), True),
        ((0.5, 1.0), (0.5, 1.0), False),
    ],
)
def test_of_equal_validations_the_one_with_less_loss_is_the_best(new, old, better):
    first, second = (
        {} if pair is None else {"accuracy": pair[0], "loss": pair[1]} for pair in (new, old)
    )
    assert _is_better(first, second, TASK) is better
