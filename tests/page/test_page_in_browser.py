"""The page in a real browser: Debian's Chromium without a window, driven by Playwright."""

import os
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from modeling_cnn10bert.integrations.web import PACKAGES_FOLDER

from .conftest import running_page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the extra `test`)")

AXE = PACKAGES_FOLDER / "axe-core-4.14.1.tgz"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (apt-get install chromium)")

SECONDS = 30_000  # milliseconds that an answer may take on a busy machine
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--mute-audio"])
        yield browser
        browser.close()


@pytest.fixture
def requests():
    """The addresses that the page asked for."""
    return []


@pytest.fixture
def open_page(browser, server, requests):
    """Opens the page in a window of its own; what it asks for elsewhere, or says as an error, fails the test."""
    contexts, errors = [], []

    def open_window(size=DESKTOP, **options):
        context = browser.new_context(viewport=size, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SECONDS)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server)
        page.get_by_text("recordings are ready").wait_for()
        page.get_by_label("Describe a sound").wait_for()
        return page

    yield open_window
    hacked = [page.evaluate("window.hacked") for context in contexts for page in context.pages]
    for context in contexts:
        context.close()
    outside = [url for url in requests if not url.startswith((server, "data:", "blob:"))]
    assert outside == [] and requests
    assert errors == []
    assert not any(hacked)


@pytest.fixture
def screenshot(tmp_path):
    """Keeps a picture of a page, in $SCREENSHOTS if that is set."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def take(page, name, whole=False):
        if whole:  # pictures are loaded when they come into view
            for picture in page.locator(".mel img").all():
                picture.scroll_into_view_if_needed()
            page.evaluate("scrollTo(0, 0)")
        page.wait_for_function(
            "[...document.images].every(i => i.complete || i.getBoundingClientRect().top > innerHeight)"
        )
        page.screenshot(path=folder / f"{name}.png", full_page=whole)

    return take


def ask(page, text):
    page.get_by_label("Describe a sound").fill(text)
    page.get_by_label("Describe a sound").press("Enter")


def hits(page):
    return page.locator(".hits .hit")


def ask_and_wait(page, text="a dog barks"):
    ask(page, text)
    hits(page).nth(9).wait_for()
    return hits(page)


def is_playing(page, number):
    """Waits until a hit's player has moved on."""
    page.wait_for_function(
        "n => { const a = document.querySelectorAll('.hit audio')[n]; "
        " return !a.paused && a.readyState > 1 && a.currentTime > 0.1 }",
        arg=number,
    )


def selected(page):
    """The rank of the selected hit."""
    return page.locator(".hit[aria-current] .rank").all_inner_texts()


def upload(page, path):
    page.locator("#recording input[type=file]").set_input_files(path)


def test_a_question_brings_ten_recordings_with_score_part_picture_and_player(open_page, screenshot):
    page = open_page()
    screenshot(page, "empty")
    found = ask_and_wait(page)
    assert found.count() == 10
    scores = [float(score) for score in page.locator(".hit .score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True) and len(scores) == 10
    assert "0:00.0 – 0:05.0, all of it" in found.first.inner_text()
    assert page.locator(".hit .hertz").first.inner_text().split("\n") == [
        "500 Hz", "1 kHz", "2 kHz", "4 kHz", "8 kHz"
    ]  # fmt: skip
    assert page.locator(".hit .seconds").first.inner_text().split("\n") == [f"{n} s" for n in range(6)]
    page.wait_for_function("document.querySelector('.hit img').naturalHeight == 64")  # the model's mel bins
    screenshot(page, "answer", whole=True)


def test_an_example_that_is_clicked_is_asked(open_page):
    page = open_page()
    page.get_by_role("button", name="church bells are ringing").click()
    hits(page).nth(9).wait_for()
    assert page.get_by_label("Describe a sound").input_value() == "church bells are ringing"
    assert "church bells are ringing" in page.locator(".say").inner_text()


def test_the_player_of_a_hit_plays_and_only_one_at_a_time(open_page):
    page = open_page()
    found = ask_and_wait(page)
    found.nth(1).locator(".cells").click()
    is_playing(page, 1)
    cells = found.nth(4).locator(".cells")
    cells.click(position={"x": 0.8 * cells.bounding_box()["width"], "y": 30})  # where the click is, it begins
    is_playing(page, 4)
    assert 3.9 < page.evaluate("document.querySelectorAll('.hit audio')[4].currentTime") <= 5
    assert page.evaluate("[...document.querySelectorAll('audio')].filter(a => !a.paused).length") == 1
    assert page.evaluate("document.querySelectorAll('.hit audio')[4].duration") == pytest.approx(5, abs=0.01)


def test_arrow_keys_walk_through_the_results_and_play_them_and_space_pauses(open_page, screenshot):
    page = open_page(size={"width": 1280, "height": 500})
    ask_and_wait(page)
    page.wait_for_function("document.activeElement.matches('.hits')")  # after Enter, the keys belong to the results
    page.keyboard.press("ArrowDown")
    assert selected(page) == ["1"]
    is_playing(page, 0)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert selected(page) == ["3"]
    is_playing(page, 2)
    screenshot(page, "arrow_keys")
    page.keyboard.press("Space")
    page.wait_for_function("document.querySelectorAll('.hit audio')[2].paused")
    for _ in range(12):
        page.keyboard.press("ArrowDown")
    assert selected(page) == ["10"]
    page.wait_for_function(
        "() => { const r = document.querySelector('.hit[aria-current]').getBoundingClientRect();"
        " return r.top >= 0 && r.bottom <= innerHeight }"
    )
    assert page.evaluate("document.activeElement.classList.contains('hit')")
    page.keyboard.press("/")
    ask(page, "something else")
    page.wait_for_function("document.activeElement.matches('.hits') && !document.querySelector('.hit[aria-current]')")


def test_arrow_keys_in_the_search_field_move_the_cursor_alone(open_page):
    page = open_page()
    ask_and_wait(page)
    page.keyboard.press("/")  # which also selects the text, so that typing replaces it
    page.keyboard.type("a cat meows")
    assert page.get_by_label("Describe a sound").input_value() == "a cat meows"
    assert page.get_by_label("Describe a sound").evaluate("field => field === document.activeElement")
    before = selected(page)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    page.keyboard.type(" x")
    assert selected(page) == before
    assert page.get_by_label("Describe a sound").input_value() == "a cat meow xs"


def test_a_recording_brings_similar_ones_and_the_captions_that_fit_it(open_page, sounds, screenshot):
    page = open_page()
    upload(page, sounds / "siren.flac")
    hits(page).nth(9).wait_for()
    assert hits(page).first.locator(".name").inner_text() == "siren.flac"
    assert hits(page).first.locator(".score").inner_text() == "1.000"
    assert page.locator(".asked .fitting li").count() == 5
    assert "the 12 captions of this collection" in page.locator(".asked").inner_text()
    page.locator(".asked .cells").click()
    page.wait_for_function("document.querySelector('.asked audio').currentTime > 0.1")
    screenshot(page, "similar", whole=True)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("letter.txt", b"Dear Sir or Madam", "letter.txt cannot be used: it does not decode"),
        ("empty.wav", b"", "empty.wav is empty: 0 bytes."),
        ("cut.wav", b"RIFF\x24\x00\x00\x00WAVEfmt ", "cut.wav cannot be used: it does not decode"),
    ],
)
def test_an_upload_that_is_no_recording_is_one_clear_line(open_page, tmp_path, screenshot, name, content, line):
    (tmp_path / name).write_bytes(content)
    page = open_page()
    upload(page, tmp_path / name)
    page.get_by_role("alert").wait_for()
    text = page.get_by_role("alert").inner_text()
    assert text.startswith(line) and "\n" not in text and str(tmp_path) not in text and "gradio" not in text
    screenshot(page, f"upload_{name}")


def test_a_recording_longer_than_the_limit_is_refused(open_page, tmp_path):
    soundfile.write(tmp_path / "long.flac", np.zeros(8000 * 301), 8000)
    page = open_page()
    upload(page, tmp_path / "long.flac")
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").inner_text().startswith("long.flac is longer than 5 minutes, which is the limit")


def test_a_file_above_the_limit_of_a_shared_page_is_refused_by_a_line_that_stays(
    browser, library, tmp_path, monkeypatch
):
    monkeypatch.setattr("modeling_cnn10bert.page.answers.MAX_UPLOAD_BYTES", 1 << 20)
    (tmp_path / "${1}.wav").write_bytes(bytes(2 << 20))
    with running_page(library, "localhost") as address:
        page = browser.new_page()
        page.goto(address)
        page.get_by_text("recordings are ready").wait_for()
        upload(page, tmp_path / "${1}.wav")
        assert page.locator(".problem").inner_text() == "${1}.wav has 2 MB; the limit is 1 MB."
        ask_and_wait(page)
        assert page.locator(".problem").count() == 0
        page.close()


def test_a_question_without_a_word_is_one_clear_line(open_page, screenshot):
    page = open_page()
    ask(page, "   ")
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").inner_text() == "Say in words what is to be heard, such as: a dog barks."
    ask(page, "?!… --")
    page.get_by_text("has no word in it").wait_for()
    screenshot(page, "no_word")


def test_a_question_of_five_thousand_words_is_answered_with_a_note(open_page, screenshot):
    page = open_page()
    ask_and_wait(page, " ".join(["a dog barks while rain falls on a roof"] * 556)[:-8])
    note = page.locator(".note").first.inner_text()
    assert re.fullmatch(r"Of these 5,00\d words, only the beginning counts: the model reads no more\.", note)
    screenshot(page, "long_question")


def test_names_and_captions_that_are_code_are_shown_as_they_are(open_page, sounds, screenshot):
    page = open_page()
    name = next(path.name for path in sounds.iterdir() if path.name.startswith("<img"))
    upload(page, sounds / name)  # which finds itself
    hits(page).nth(9).wait_for()
    assert hits(page).first.locator(".name").inner_text() == name
    assert hits(page).first.locator(".caption").inner_text() == (
        "<script>window.hacked=1</script> a strange hum & a “buzz” {{value}} `${window.hacked=1}`"
    )
    ask(page, "<img src=x onerror=window.hacked=1> {{7*7}} ${window.hacked=1}")
    page.get_by_text("“<img src=x onerror=window.hacked=1> {{7*7}} ${window.hacked=1}”").wait_for()
    screenshot(page, "code_in_names")


def test_a_phone_sees_all_of_the_page_without_scrolling_sideways(open_page, sounds, screenshot):
    page = open_page(size=PHONE, has_touch=True, is_mobile=True)
    wide = "document.documentElement.scrollWidth > innerWidth"
    assert not page.evaluate(wide)
    screenshot(page, "phone_empty")
    ask_and_wait(page)
    assert not page.evaluate(wide)
    page.locator(".hit audio").first.scroll_into_view_if_needed()
    screenshot(page, "phone_answer")
    upload(page, sounds / "siren.flac")
    page.locator(".asked").wait_for()
    assert not page.evaluate(wide)
    screenshot(page, "phone_similar", whole=True)


def test_filters_more_similar_ones_favorites_and_the_address_of_a_question(open_page, server):
    page = open_page()
    ask_and_wait(page)
    page.get_by_role("button", name="Show ten more").press("Enter")
    hits(page).nth(11).wait_for()
    page.wait_for_function("document.activeElement.querySelector('.rank')?.innerText === '10'")
    page.keyboard.press("ArrowDown")
    assert selected(page) == ["11"]
    third = hits(page).nth(2).locator(".name").inner_text()
    for number in (2, 4):
        hits(page).nth(number).get_by_role("button", name="Favorite").press("Enter")
    with page.expect_download() as download:
        page.get_by_role("link", name="Playlist of the favorites (2)").press("Enter")
    lines = Path(download.value.path()).read_text().splitlines()
    assert len(lines) == 5 and lines[2].endswith(f"/{third}")
    hits(page).nth(2).get_by_role("button", name="Similar to").press("Enter")
    page.get_by_text(f"that sound like “{third}”").wait_for()
    assert third not in page.locator(".hit .name").all_inner_texts()
    page.get_by_role("button", name="Filters").press("Enter")
    page.get_by_label("At most (s), 0 for any").fill("4")
    ask(page, "rain & wind")
    page.get_by_text("The 0 best recordings for “rain & wind”").wait_for()
    assert page.url == f"{server}/?text=rain+%26+wind&longest=4"
    page.goto(f"{server}/?text=rain&without=wind&longest=5")
    page.get_by_text("The 10 best recordings for “rain without wind”").wait_for()
    assert page.get_by_label("Without").input_value() == "wind"


@pytest.mark.skipif(not AXE.is_file(), reason=f"there is no {AXE} (npm pack axe-core@4.14.1, in its folder)")
def test_axe_finds_nothing_wrong_with_the_page(open_page):
    with tarfile.open(AXE) as archive:
        axe = archive.extractfile("package/axe.min.js").read().decode()
    for scheme, size in (("light", DESKTOP), ("dark", PHONE)):
        page = open_page(size, color_scheme=scheme)
        ask_and_wait(page)
        page.evaluate(axe)
        # The label of Gradio's own upload area differs from its text.
        found = page.evaluate("axe.run({exclude: ['.upload-container']})")["violations"]
        assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found] == []
