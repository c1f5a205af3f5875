import pytest

from support import modality_data as made
from support.bad_files import ARRAY, AUDIO, POINTS, SERIES, VIDEO
from support.server import BOUNDS, GOOD_SUFFIX, bad_files, bad_forms, client_of, good_file

BAD = {"audio": AUDIO, "video": VIDEO, "points": POINTS, "series": SERIES, "array": ARRAY}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def not_refused(answer) -> bool:
    """Tell whether an answer is anything but a refusal with a reason that a person can read."""
    if not 400 <= answer.status_code < 500:
        return True
    reason = answer.json()["error"]
    return len(reason) < 20 or "Traceback" in reason or "/tmp" in reason


def sent(client, kind, name, data):
    return client.post("/predict", files={kind: (name, data)})


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.quick] * (kind == "image")) for kind in GOOD_SUFFIX],
)
def test_malformed_files_get_a_reason_and_the_next_good_one_an_answer(kind, folder):
    malformed = [one for one in bad_files(folder) if one.kind == kind]
    with client_of(folder, kind, limits=BOUNDS) as client:
        answers = [(one.name, sent(client, kind, one.name, one.data), True) for one in malformed]
        for bad in BAD.get(kind, ()):
            bad.write(folder / bad.name)
            data = (folder / bad.name).read_bytes()
            answers.append((bad.name, sent(client, kind, bad.name, data), bool(bad.why)))
        wrong = [
            (name, answer.status_code, answer.text)
            for name, answer, is_bad in answers
            if (not_refused(answer) if is_bad else answer.status_code != 200)
        ]
        assert wrong == []
        answer = sent(client, kind, f"good{GOOD_SUFFIX[kind]}", good_file(kind, folder))
        assert answer.status_code == 200, answer.text
        assert client.service.decoders.restarts == 0


def test_there_are_two_hundred_of_them(folder):
    refusing = sum(bool(bad.why) for files in BAD.values() for bad in files)
    forms = bad_forms(made.png(0, 0))
    assert len(bad_files(folder)) + len(forms) + refusing >= 200


def test_malformed_forms_get_a_reason_and_the_next_good_one_an_answer(folder):
    good = made.png(0, 0)
    with client_of(folder, "image", limits=BOUNDS) as client:
        answers = [
            (kind, body[:90], client.post("/predict", content=body, headers={"content-type": kind}))
            for kind, body in bad_forms(good)
        ]
        wrong = [
            (kind, body, answer.status_code, answer.text)
            for kind, body, answer in answers
            if not_refused(answer)
        ]
        assert wrong == []
        assert sent(client, "image", "a.png", good).status_code == 200
        # A name that is no text is no reason: only its end is looked at.
        form = (
            b'--m\r\nContent-Disposition: form-data; name="image"; filename="\xff\xfe.png"\r\n\r\n'
        )
        body = form + good + b"\r\n--m--\r\n"
        answer = client.post(
            "/predict", content=body, headers={"content-type": "multipart/form-data; boundary=m"}
        )
        assert answer.status_code == 200
