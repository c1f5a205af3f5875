"""The page of a served run in a real browser: what people do there, by mouse and by keyboard alone."""

import shutil
import socket
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

import perceivers as pv
from perceivers.data.modalities.music.midi_file import midi_bytes
from perceivers.data.modalities.music.score import Note, one_part
from perceivers.explain.attribution.explanation import Explanation
from perceivers.explain.contents.array import ArrayContent
from perceivers.explain.contents.audio import WaveformContent
from perceivers.explain.contents.base import View
from perceivers.explain.contents.series import SeriesContent
from perceivers.explain.contents.table import TableContent
from perceivers.explain.contents.text import TextContent
from perceivers.explain.render import explanation_json
from perceivers.explain.render.write import page_of
from perceivers.server import app as served_app
from perceivers.tasks.prediction import Prediction
from support.explanations import explanation, view
from support.files import write_off, write_video, write_wav
from support.modality_data import frames, points, tone
from support.models import save_generating, save_untrained
from support.timing import PATIENCE, wait_until

SHARED = Path(explanation_json.__file__).with_name("static")
STATIC = Path(served_app.__file__).with_name("static")
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)"
)

# What the browser itself says of an answer that is an error. The page shows its reason.
REFUSED = "Failed to load resource: the server responded with a status of 4"


def save_looking(folder: Path, *kinds: str) -> Path:
    """Write a run that learned nothing, but whose latents do not all look everywhere alike."""
    save_untrained(folder, *kinds)
    weights = load_file(folder / "model.safetensors")
    weights["encoder.latents"] *= 100
    save_file(weights, folder / "model.safetensors")
    return folder


@contextmanager
def served(folder: Path, token: str | None = None):
    """Serve a run from a thread of this process, and give its address."""
    import uvicorn

    from perceivers.server.app import create_app
    from perceivers.server.service import Service
    from perceivers.server.settings import ServerSettings

    app = create_app(Service(ServerSettings(str(folder), device="cpu")), token=token)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        wait_until(lambda: server.started)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(PATIENCE)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--mute-audio"]
    flags += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@contextmanager
def visited(browser, address: str, token: str | None = None, **how):
    """Open the page, and afterwards hold it to what every visit promises: no error, and no request to elsewhere."""
    context = browser.new_context(**({"viewport": {"width": 1100, "height": 900}} | how))
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    heard = SimpleNamespace(errors=[], hosts=set(), refused=0)
    page.on("pageerror", lambda error: heard.errors.append(str(error)))
    page.on("request", lambda one: heard.hosts.add(urlsplit(one.url).hostname))

    def note(message):
        if message.type == "error" and message.text.startswith(REFUSED):
            heard.refused += 1
        elif message.type in ("error", "warning"):
            heard.errors.append(message.text)

    page.on("console", note)
    page.goto(address)
    if token is not None:
        page.fill("#token-value", token)
        page.keyboard.press("Enter")
    page.wait_for_selector("body[data-ready]")
    yield page, heard
    assert heard.errors == []
    assert heard.hosts <= {"127.0.0.1", None, ""}  # pictures within the page have no host
    context.close()


def give(page, file: Path, field: str) -> None:
    page.set_input_files(f"#give-{field}", file)
    finish(page)


def finish(page) -> None:
    """Wait until what was given is answered and drawn."""
    page.wait_for_selector("body[aria-busy=false]")
    assert page.inner_text("#problem") == "" or page.is_hidden("#problem"), page.inner_text(
        "#problem"
    )
    assert page.is_visible("#controls"), page.inner_text("#empty")


def drawn(page, place: int = 0) -> str:
    """Return what is drawn on a canvas."""
    return page.evaluate(
        "place => document.querySelectorAll('canvas.drawn')[place].toDataURL()", place
    )


def choose(page, name: str, value: int) -> None:
    """Move a slider as a finger does."""
    page.eval_on_selector(
        name,
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }",
        value,
    )


def said(page) -> str:
    return page.inner_text("#spoken")


def spoil(file: Path) -> Path:
    file.write_bytes(b"nothing of the kind")
    return file


def tabbed_to(page, name: str) -> None:
    """Press Tab until something has the focus, and see that it shows."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("name => document.activeElement.matches(name)", name):
            outline = "getComputedStyle(document.activeElement).outlineStyle"
            assert page.evaluate(outline) != "none"
            return
    pytest.fail(f"Tab does not lead to {name}.")


def made_views() -> list[dict]:
    """Return a view of each kind that no run of these tests has."""
    rng = np.random.default_rng(0)
    recorded = np.where(rng.random((40, 2)) < 0.1, np.nan, rng.random((40, 2)))
    contents = {
        "text": TextContent(
            units=np.array([*"Grüße, who?".encode(), 259]), marks=("P", "B", "C", "M")
        ),
        "series": SeriesContent(
            values=recorded.astype(np.float32),
            times=np.arange(40) / 20,
            channels=("x", "y"),
            step=4,
        ),
        "array": ArrayContent(values=rng.random((10, 3)).astype(np.float32)),
        "wave": WaveformContent(
            samples=rng.random((4000, 1)).astype(np.float32), rate=4000.0, step=400
        ),
        "table": TableContent(fields=("age", "color"), texts=("41", "")),
    }
    counts = {"text": 14, "series": 10, "array": 10, "wave": 10, "table": 2}
    parts = tuple(
        View(
            name=name,
            content=content,
            attention=rng.random((2, counts[name])).astype(np.float32),
            share=np.full(2, 0.2, np.float32),
            even=0.2,
            scores=np.zeros((2, 1, counts[name]), np.float32),
        )
        for name, content in contents.items()
    )
    none = np.zeros(0, np.float32)
    made = Explanation(name="made", label_names=(), probabilities=none, views=parts, latents=(0,))
    return explanation_json.views_json(made)


def made_answers():
    tags = {"a": 0.9, "b": 0.6}
    parts = {
        "price": Prediction(name="", task="regression", values={"euro": -3.5}),
        "tags": Prediction(
            name="",
            task="multilabel",
            label="a",
            probability=0.9,
            labels=("a", "b"),
            top=tuple(tags.items()),
            probabilities=tags,
        ),
    }
    return [Prediction(name="made", task="multitask", tasks=parts).answer()]


@pytest.mark.slow
def test_every_other_kind_of_input_is_given_and_drawn(browser):
    inputs = [
        {"name": "text", "kind": "text", "accept": [".txt"]},
        {"name": "age", "kind": "table", "number": True, "choices": []},
        {"name": "color", "kind": "table", "choices": ["red", "blue"]},
    ]
    answers = made_answers()
    outputs = [{"name": name, "task": "", "names": []} for name in ("price", "tags")]
    run = {"name": "made", "inputs": inputs, "outputs": outputs, "reads": 2, "latents": 1}
    told = {
        "/run": {**run, "heads": [1, 1]},
        "/predict": {"answers": answers, "milliseconds": 3.0},
        "/explain": {"answers": answers, "views": made_views()},
    }
    sent = []

    def answer(route):
        path = urlsplit(route.request.url).path
        if path in told:
            sent.append((route.request.post_data_buffer or b"").decode())
            route.fulfill(json=told[path])
        else:
            name = path.removeprefix("/static/").strip("/") or "index.html"
            shared = name.removeprefix("shared/")
            route.fulfill(path=STATIC / name if shared == name else SHARED / shared)

    context = browser.new_context()
    context.route("**/*", answer)
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto("http://127.0.0.1/")
    page.wait_for_selector("body[data-ready]")
    page.fill("#give-age", "41")
    page.select_option("#give-color", "blue")
    assert page.locator("#give button.strong").count() == 1
    page.click("#send")
    finish(page)
    page.fill("#give-text", "Grüße")
    with page.expect_response("**/explain"):
        page.press("#give-text", "Control+Enter")
    finish(page)
    assert all(value in sent[-1] for value in ("41", "blue", "Grüße", "mean"))
    assert errors == []
    assert page.locator("figure h3").all_inner_texts() == [
        "text",
        "series",
        "array",
        "wave",
        "table",
    ]
    assert said(page) == "Output: price: euro -3.5; tags: a, b. The attention map is drawn."
    assert page.inner_text(".passage") == "Grüße, who?[M]"
    color = "document.querySelector('.passage span').style.backgroundColor"
    before = [page.evaluate(color), *(drawn(page, place) for place in range(3))]
    choose(page, "#depth", 1)
    after = [page.evaluate(color), *(drawn(page, place) for place in range(3))]
    assert all(old != new for old, new in zip(before, after, strict=True))
    context.close()


@pytest.mark.slow
def test_a_page_of_an_explanation_needs_no_server(tmp_path, browser):
    names = ("picture", "film", "wave", "spectrogram", "cloud", "short text", "recording")
    names += ("values", "fields", "elements")
    views = [view(name, modality=name, kept="for cat", share=0.1, even=0.1) for name in names]
    file = tmp_path / "a.html"
    file.write_text(page_of(explanation(*views, map="class", about="cat")), encoding="utf-8")
    with visited(browser, file.as_uri()) as (page, _):
        assert page.locator("figure h3").count() == len(names)
        assert page.inner_text("#depth-said") == "for cat"
        assert "more probable" in page.inner_text("#legend")
        canvases = page.locator("canvas.drawn").count()
        states = [[drawn(page, place) for place in range(canvases)]]
        choose(page, "#depth", 1)
        assert page.inner_text("#depth-said") == "cross-attention 1 of 2"
        states.append([drawn(page, place) for place in range(canvases)])
        page.select_option("#latent", "2")
        page.select_option("#kind", "scores")
        assert "latent 2, the mean over heads, before" in page.inner_text("#legend")
        states.append([drawn(page, place) for place in range(canvases)])
        page.uncheck("#overlay")
        states.append([drawn(page, place) for place in range(canvases)])
        for place in range(canvases):
            assert len({state[place] for state in states}) == 4
        assert page.locator("[data-input=fields] .number").first.inner_text() == ""
        page.check("#overlay")
        assert float(page.locator("[data-input=fields] .number").first.inner_text()) < 1
        page.click("text=Play")
        wait_until(lambda: page.evaluate("document.querySelector('.player input').value > 0.1"))


@pytest.mark.slow
def test_the_file_of_the_audio_is_played_whatever_was_chosen_first(tmp_path, browser):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    write_wav(tmp_path / "a.wav", tone(0, 0))
    folder = save_looking(tmp_path / "run", "image", "audio")
    with served(folder) as address, visited(browser, address) as (page, _):
        labels = page.locator("#zones label").all_inner_texts()
        assert labels == [
            "Drop an image here, or choose one:",
            "Drop an audio file here, or choose one:",
        ]
        give(page, tmp_path / "a.png", "image")
        give(page, tmp_path / "a.wav", "audio")
        page.wait_for_selector(".player")
        assert "cannot play" not in page.inner_text("#views")
        assert page.locator("figure h3").all_inner_texts() == ["audio", "image"]


@pytest.mark.slow
def test_a_picture_is_answered_and_drawn(tmp_path, browser):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    file = tmp_path / "a.png"
    Image.fromarray(pixels).save(file)
    folder = save_looking(tmp_path / "run", "image")
    with served(folder) as address, visited(browser, address) as (page, heard):
        assert page.inner_text("h1") == "run"
        assert "2 cross-attentions by 4 latents" in page.inner_text("#about")
        give(page, file, "image")
        assert said(page).startswith("Output: ")
        assert "The attention map is drawn." in said(page)
        rows = page.locator("#answers .bars li")
        assert rows.count() == 2
        assert {"low", "high"} == set(
            page.locator("#answers .bars li > :first-child").all_inner_texts()
        )
        maps = [drawn(page)]
        for depth, title in enumerate(("cross-attention 1 of 2", "cross-attention 2 of 2"), 1):
            choose(page, "#depth", depth)
            assert page.inner_text("#depth-said") == title
            maps.append(drawn(page))
        assert len(set(maps)) == 3
        with page.expect_response("**/explain"):
            choose(page, "#latent", 2)
        wait_until(lambda: drawn(page) != maps[-1])
        assert page.inner_text("#latent-said") == "2 of 4"
        page.uncheck("#overlay")
        assert drawn(page) not in maps

        page.set_input_files("#give-image", spoil(tmp_path / "bad.png"))
        page.wait_for_selector("#problem:not([hidden])")
        reason = page.inner_text("#problem")
        assert "bad.png" in reason or "image" in reason
        assert (heard.refused, len(reason) > 30) == (1, True)
        page.click("text=Take a photo")
        page.click("#camera-take")
        page.wait_for_selector("#problem", state="hidden")
        finish(page)
        assert page.inner_text("[data-zone=image] .given") == "camera.png"


@pytest.mark.slow
def test_a_sound_plays_with_its_map(tmp_path, browser):
    file = write_wav(tmp_path / "a.wav", tone(0, 1, seconds=0.4))
    folder = save_looking(tmp_path / "run", "audio")
    with served(folder) as address, visited(browser, address) as (page, heard):
        give(page, file, "audio")
        first = drawn(page)
        choose(page, "#depth", 2)
        assert drawn(page) != first
        before = drawn(page)
        page.click("text=Play")
        wait_until(lambda: page.evaluate("document.querySelector('.player input').value > 0.1"))
        assert drawn(page) != before  # where it plays has moved
        wait_until(lambda: page.evaluate("document.querySelector('.play').textContent === 'Play'"))

        page.set_input_files("#give-audio", spoil(tmp_path / "bad.wav"))
        page.wait_for_selector("#problem:not([hidden])")
        assert heard.refused == 1
        page.click("text=Record")
        page.wait_for_timeout(500)
        page.click("text=Stop")
        page.wait_for_selector("#problem", state="hidden")
        finish(page)
        assert page.inner_text("[data-zone=audio] .given") == "microphone.wav"
        assert "The attention map is drawn." in said(page)


@pytest.mark.slow
def test_a_film_with_its_sound_by_keyboard_alone(tmp_path, browser):
    heard_there = tone(1, 2, seconds=0.8, rate=16_000)
    file = write_video(tmp_path / "a.mp4", frames(0, 1), audio=heard_there)
    folder = save_looking(tmp_path / "run", "video", "audio")
    with served(folder) as address, visited(browser, address) as (page, _):
        page.wait_for_load_state("networkidle")  # nothing moves the focus any more
        tabbed_to(page, "#give-file")
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Space")
        chooser.value.set_files(file)
        finish(page)
        assert page.locator("figure h3").all_inner_texts() == ["video", "audio"]
        both = drawn(page, 0), drawn(page, 1)
        tabbed_to(page, "#depth")
        page.keyboard.press("ArrowRight")
        assert page.inner_text("#depth-said") == "cross-attention 1 of 2"
        assert (drawn(page, 0) != both[0], drawn(page, 1) != both[1]) == (True, True)
        tabbed_to(page, "#latent")
        with page.expect_response("**/explain"):
            page.keyboard.press("ArrowRight")
        tabbed_to(page, "#overlay")
        page.keyboard.press("Space")
        assert not page.is_checked("#overlay")
        tabbed_to(page, ".play")
        page.keyboard.press("Enter")
        wait_until(
            lambda: page.evaluate("document.querySelector('canvas.drawn').dataset.frame > 2")
        )
        tabbed_to(page, ".player input")
        page.keyboard.press("Home")
        assert page.evaluate("document.querySelector('canvas.drawn').dataset.frame") == "0"


def test_points_turn_on_a_phone_in_the_dark(tmp_path, browser):
    file = write_off(tmp_path / "a.off", points(0, 1, count=32))
    folder = save_looking(tmp_path / "run", "points")
    phone = {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark", "has_touch": True}
    with (
        served(folder, "secret") as address,
        visited(browser, address, "secret", **phone) as (page, heard),
    ):
        assert heard.refused == 1  # before the token was given
        give(page, file, "points")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert sum(int(part) for part in paper[4:-1].split(",")) < 120
        canvas = page.locator("canvas.points")
        seen = [drawn(page)]
        canvas.focus()
        for key in ("ArrowLeft", "ArrowUp", "+"):
            page.keyboard.press(key)
            seen.append(drawn(page))
        page.keyboard.press("Home")
        assert drawn(page) == seen[0]
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + 100, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + 160, box["y"] + 120, steps=3)
        page.mouse.up()
        seen.append(drawn(page))
        choose(page, "#depth", 2)
        seen.append(drawn(page))
        assert len(set(seen)) == 6
        page.set_input_files("#give-points", spoil(tmp_path / "bad.off"))
        page.wait_for_selector("#problem:not([hidden])")
        assert heard.refused == 2


def test_a_text_appears_as_it_is_generated_and_can_be_stopped(tmp_path, browser, monkeypatch):
    monkeypatch.setattr("perceivers.server.generation._SLICE_SECONDS", 0)
    folder = save_generating(tmp_path / "run")
    with (
        served(folder, "secret") as address,
        visited(browser, address, "secret") as (page, heard),
    ):
        page.fill("#give-text", "the <b>cat")
        page.fill("#generate-length", "20")
        page.click("#generate-start")
        wait_until(lambda: page.inner_text("#generate-end"))
        assert page.inner_text("#generate-end").startswith("20 tokens in ")
        assert page.inner_text("#generate-prompt") == "the <b>cat"
        whole = page.text_content("#generate-text")
        assert whole == pv.load(folder).generate("the <b>cat", length=20, temperature=0.8)
        page.fill("#generate-length", "4000")
        page.click("#generate-start")
        wait_until(lambda: len(page.text_content("#generate-text")) > 30)
        page.click("#generate-stop")
        wait_until(lambda: page.inner_text("#generate-end") == "Stopped.")
        assert heard.refused == 1  # before the token was given
        page.fill("#generate-length", "0")
        page.click("#generate-start")
        page.wait_for_selector("#problem:not([hidden])")
        assert "from 1 to 4096, got 0" in page.inner_text("#problem")


def test_a_generated_file_can_be_saved(tmp_path, browser):
    """Without a prompt, after the file that was given, and an error for one that cannot be read."""
    folder = save_generating(tmp_path / "run", "music")
    song = one_part([Note(one / 4, (one + 1) / 4, 60, 66) for one in range(12)])
    song.save(tmp_path / "start.mid")
    (tmp_path / "bad.mid").write_bytes(b"hello")
    predictor = pv.load(folder)
    with served(folder) as address, visited(browser, address) as (page, _):
        page.fill("#generate-length", "20")
        for prompt in (None, tmp_path / "start.mid"):
            if prompt:
                page.set_input_files("#give-music", prompt)
                page.wait_for_selector("#answer:not([hidden])")
            page.click("#generate-start")
            page.wait_for_selector("#generate-file:not([hidden])")
            assert page.inner_text("#generate-end").startswith("20 tokens in ")
            with page.expect_download() as saved:
                page.click("#generate-link")
            assert saved.value.suggested_filename == "generated.mid"
            piece = predictor.generate(prompt, length=20, temperature=0.8)
            assert saved.value.path().read_bytes() == midi_bytes(piece)
        page.set_input_files("#give-music", tmp_path / "bad.mid")
        page.click("#generate-start")
        page.wait_for_selector("#problem:not([hidden])")
        assert "as MIDI" in page.inner_text("#problem")
