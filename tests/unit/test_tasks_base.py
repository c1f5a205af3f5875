from perceivers.tasks.base import Meter, Task
from perceivers.tasks.classification import ClassificationConfig, ClassificationTask


def test_classification_offers_what_a_task_promises():
    task = ClassificationTask(ClassificationConfig(label_names=("ant", "bee")))
    assert isinstance(task, Task)
    assert isinstance(task.meter(), Meter)
    assert not isinstance(task, Meter)
