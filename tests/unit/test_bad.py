import pytest

from perceivers.data.loading.loader import BadRowTracker
from perceivers.data.loading.transform import WorkerResult


def failed(*names, num_rows=10):
    return WorkerResult(
        num_rows=num_rows, bad=tuple((name, f"Cannot read '{name}'.") for name in names)
    )


def test_one_row_counts_once_however_often_it_fails():
    intake = BadRowTracker(0.1, 10)
    for _ in range(5):
        assert intake.take(failed("a")) is None
    assert intake.bad == {"a": "Cannot read 'a'."}


def test_exactly_the_share_allowed_goes_on():
    intake = BadRowTracker(0.01, 100)
    intake.take(failed("a"))
    with pytest.raises(ValueError, match=r"2 of 100 rows \(2\.0%\).*'a'.*'b'.*--max-bad 0\.05"):
        intake.take(failed("b"))


def test_no_bad_row_is_allowed_at_zero():
    with pytest.raises(ValueError, match=r"1 of 1,000 rows \(0\.1%\) .* than the 0\.0% allowed"):
        BadRowTracker(0.0, 1000).take(failed("a"))


def test_all_may_fail_at_one():
    intake = BadRowTracker(1.0, 2)
    intake.take(failed("a", "b"))
    assert len(intake.bad) == 2


def test_rows_of_unknown_number_are_judged_by_those_read_so_far():
    intake = BadRowTracker(0.02, None)
    intake.take(failed("a", "b"))  # 2 of 10, but 10 are too few to judge
    intake.take(failed("c", num_rows=190))  # 3 of 200
    with pytest.raises(ValueError, match=r"5 of 201 rows \(2\.5%\)"):
        intake.take(failed("d", "e", num_rows=1))


def test_a_workers_failure_is_raised_here():
    with pytest.raises(TypeError, match="a list"):
        BadRowTracker(0.1, 10).take(WorkerResult(failure=(TypeError, "a list")))


def test_the_state_comes_back():
    intake, other = BadRowTracker(0.5, None), BadRowTracker(0.5, None)
    intake.take(WorkerResult(num_rows=7, bad=(("a", "gone"),), notes={"turned as EXIF says": 2}))
    other.load_state_dict(intake.state_dict())
    assert other.state_dict() == intake.state_dict()
    assert other.notes == {"turned as EXIF says": 2}
