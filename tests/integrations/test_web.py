"""The static search page, in Debian's Chromium without a window, which reaches nothing but the folder of the page."""

import base64
import functools
import hashlib
import http.server
import json
import os
import shutil
import sys
import tarfile
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from modeling_cnn10bert import CNN10FeatureExtractor
from modeling_cnn10bert.errors import DataError, RetrievalError
from modeling_cnn10bert.retrieval import AudioRetriever
from modeling_cnn10bert.retrieval.identity import weights_fingerprint
from modeling_cnn10bert.retrieval.records import EmbeddedFile, FileRecord, IndexInfo, ModelIdentity
from modeling_cnn10bert.retrieval.retriever import RetrievalWarning
from modeling_cnn10bert.retrieval.stores import open_store

pytest.importorskip("onnxscript", reason="an export needs the extra `onnx`")

from modeling_cnn10bert.integrations import web  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Tests do not fetch them: CI has done it, and so does the first `cnn10bert export --web`.
PACKAGES = Path(os.environ.get("NPM_PACKAGES") or web.PACKAGES_FOLDER)
HAS_PACKAGES = all((PACKAGES / package.file).is_file() for package in web.RUNTIME)
SECONDS = 30_000  # milliseconds that an answer may take on a busy machine
HOSTILE = "50% <img src=x onerror=window.hacked=1> #1? é.flac"
TEXTS = ["a dog barks", "The RAIN, of this dog: is a siren!", "wáter drips “while” ａ siren wails ½", "dog " * 50]


# -------------------------------------------------------------------------------------------------------- the folder


@pytest.fixture(scope="module")
def pages():
    """The page, made by whichever test asks first, as an export takes some seconds."""
    return {}


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    """The folder of the npm packages, or of packages that have the same files without their content."""
    if HAS_PACKAGES:
        return PACKAGES
    stand_ins = {}
    for package, members in web.RUNTIME.items():
        with tarfile.open(tmp_path / package.file, "w:gz") as archive:
            for member in members:
                archive.add(__file__, member)
        content = (tmp_path / package.file).read_bytes()
        stand_ins[web.NpmPackage(package.name, package.file, hashlib.sha512(content).hexdigest())] = members
    monkeypatch.setattr(web, "RUNTIME", stand_ins)
    return tmp_path


@pytest.fixture
def collection(pages, tiny_folder, tmp_path_factory, noise):
    """A model, twelve recordings in two folders, one of them of three windows, and their index."""
    if "collection" not in pages:
        folder = tmp_path_factory.mktemp("collection").resolve()
        shutil.copytree(tiny_folder[0], folder / "model")
        (folder / "sounds" / "deep").mkdir(parents=True)
        for number in range(12):
            name = HOSTILE if number == 3 else f"deep/{number}.flac" if number % 2 else f"{number}.wav"
            seconds = 2.5 if number == 4 else 0.4
            tone = 0.3 * np.sin(2 * np.pi * 150 * 1.4**number * np.arange(32_000 * seconds) / 32_000)
            fading = np.linspace(1, 0.1 * (number % 4), len(tone))
            samples = tone * fading + 0.1 * (number % 3) * noise(len(tone), number)
            if number == 4:
                samples[:32_000] = 0.3 * noise(32_000, number)  # its windows differ in more than level
            soundfile.write(folder / "sounds" / name, samples, 32_000)
        with AudioRetriever.from_pretrained(folder / "model", index=folder / "index", device="cpu") as retriever:
            retriever.index([folder / "sounds"], window=1.0, overlap=0.25)
        pages["collection"] = folder
    return pages["collection"]


@pytest.fixture
def page(pages, collection, runtime, cnn10bert):
    """The folder of the page, made by the command."""
    if "page" not in pages:
        out, index = collection / "page", collection / "index"
        done = cnn10bert(
            "export", collection / "model", "--web", out, "--index", index, "--with-sounds", "--runtime", runtime
        )
        assert f"{out}: " in done.stdout and "python -m http.server" in done.stdout
        pages["page"] = out
    return pages["page"]


def test_the_folder_is_a_static_space_without_a_path_of_this_machine(page, collection):
    assert "sdk: static" in (page / "README.md").read_text().split("---")[1]
    files = [path for path in page.rglob("*") if path.is_file()]
    assert not [path.name for path in files if str(collection).encode() in path.read_bytes()]
    names = [recording["name"] for recording in json.loads((page / "search.json").read_text())["recordings"]]
    assert len(names) == 12 and {"0.wav", "deep/1.flac", HOSTILE} < set(names)
    for name in names:
        assert (page / "sounds" / name).read_bytes() == (collection / "sounds" / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "other" / "mine.txt").write_text("mine"), "found a folder that is not empty"),
        (lambda folder: (folder / "sounds" / "0.wav").unlink(), r"0\.wav: found no such file, and 1 of 12 recordings"),
        (lambda folder: (folder / "model" / "model.safetensors").unlink(), "model: found no weights"),
    ],
)
def test_what_cannot_be_exported_is_refused_at_once(collection, tmp_path, runtime, change, message):
    (tmp_path / "other").mkdir()
    for name in ("model", "sounds"):
        shutil.copytree(collection / name, tmp_path / name)
    with AudioRetriever.from_pretrained(tmp_path / "model", index=tmp_path / "index", device="cpu") as retriever:
        retriever.index([tmp_path / "sounds"])
    change(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RetrievalError, match=message):
        web.export_web(tmp_path / "model", tmp_path / "other", tmp_path / "index", with_sounds=True, runtime=runtime)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_model_of_another_index_is_refused(collection, tmp_path, tiny_model, processor):
    tiny_model(seed=1, text={"vocab_size": len(processor.tokenizer)}).save_pretrained(tmp_path / "model")
    with pytest.raises(RetrievalError, match="they differ in weights"):
        web.export_web(tmp_path / "model", tmp_path / "page", collection / "index")


@pytest.mark.parametrize(
    ("n_fft", "paths", "message"),
    [
        (1000, ["/sounds/a.wav"], "found n_fft 1000, expected a power of two"),
        (
            1024,
            ["/sounds/a.wav", "/music/b.wav"],
            "found recordings in /music and /sounds, expected them in one folder",
        ),
        (1024, [], "found no recording, expected at least one"),
    ],
)
def test_an_index_that_no_page_can_search_is_refused(collection, tmp_path, n_fft, paths, message):
    identity = ModelIdentity("m", None, weights_fingerprint(str(collection / "model")), 12, {"n_fft": n_fft})
    records = [FileRecord(path, "0", 1, 1, 1.0) for path in paths]
    with open_store(str(tmp_path / "index"), IndexInfo(identity)) as store:
        store.put([EmbeddedFile(record, [(0.0, 1.0)], np.eye(1, 12, dtype=np.float32)) for record in records])
    with pytest.raises(RetrievalError, match=message):
        web.export_web(collection / "model", tmp_path / "page", tmp_path / "index")


@pytest.mark.parametrize("words", [["folder", "--web", "page"], [], ["folder", "--with-sounds"]])
def test_the_command_takes_one_folder_to_write(cnn10bert, words):
    assert "expected " in cnn10bert("export", "model", *words, code=2).stderr


# ----------------------------------------------------------------------------------------------------- in the browser


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the extra `test`)")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium (apt-get install chromium)")
    if not HAS_PACKAGES:
        pytest.skip(f"the npm packages are not in {PACKAGES}; cnn10bert export --web fetches them")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--mute-audio"])
        yield browser
        browser.close()


@pytest.fixture
def server(page):
    """The address of Python's file server for the folder of the page."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Handler, directory=str(page))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def open_page(browser, server):
    """Opens the page; a request to elsewhere is blocked, and fails the test as an error of the page does."""
    contexts, outside, errors = [], [], []

    def open_window(without=None, **options):
        def answer(route):
            if not route.request.url.startswith((server, "data:", "blob:")):
                outside.append(route.request.url)
                route.abort()
            elif without is not None and route.request.url.endswith(without):
                route.fulfill(status=404)
            else:
                route.continue_()

        context = browser.new_context(**options)
        contexts.append(context)
        context.route("**/*", answer)
        window = context.new_page()
        window.set_default_timeout(SECONDS)
        window.on("pageerror", lambda error: errors.append(str(error)))
        window.goto(server)
        if without is None:
            window.get_by_text("12 recordings are ready").wait_for()
        return window

    yield open_window
    hacked = [window.evaluate("window.hacked") for context in contexts for window in context.pages]
    for context in contexts:
        context.close()
    assert outside == [] and errors == [] and not any(hacked)


def ask(window, text):
    window.get_by_label("Describe a sound").fill(text)
    window.get_by_label("Describe a sound").press("Enter")
    return hits(window)


def upload(window, path):
    window.get_by_label("choose a recording").set_input_files(path)
    return hits(window)


def hits(window):
    """Name and score of each hit."""
    window.get_by_text("The 10 best recordings").wait_for()
    names = window.locator("#hits .name").all_inner_texts()
    return dict(zip(names, map(float, window.locator("#hits .score").all_inner_texts()), strict=True))


def problem(window):
    window.get_by_role("alert").wait_for()
    return window.get_by_role("alert").inner_text()


def test_texts_and_recordings_find_the_ten_that_python_finds(open_page, page, collection, tmp_path):
    window = open_page()
    shutil.copy(collection / "sounds" / "4.wav", tmp_path)  # elsewhere, so that Python does not leave it out
    samples, rate = soundfile.read(collection / "sounds" / "deep" / "1.flac")
    soundfile.write(tmp_path / "cd.wav", np.stack([0.5 * samples, -samples], 1), 44_100)  # channels that cancel
    with AudioRetriever.from_pretrained(page / "model", index=collection / "index") as retriever:
        for text in TEXTS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RetrievalWarning)  # of the text that is cut
                same_hits(ask(window, text), retriever.search(text), collection)
        assert "Only the beginning of this text counts" in window.get_by_role("status").inner_text()
        for name in ("4.wav", "cd.wav"):
            same_hits(upload(window, tmp_path / name), retriever.similar(tmp_path / name), collection)


def same_hits(found, expected, collection):
    """The page shows a score to three places."""
    names = [os.path.relpath(hit.file, collection / "sounds") for hit in expected]
    assert list(found) == names
    assert list(found.values()) == pytest.approx([hit.score for hit in expected], abs=0.0006)


def test_a_hit_is_played_from_its_best_window_on_and_only_one_at_a_time(open_page):
    window = open_page()
    ask(window, "a dog barks")
    players = window.locator("#hits audio")
    assert players.count() == 10 and any(not place.endswith("#t=0") for place in sources(players) if "4.wav" in place)
    hostile = next(number for number, place in enumerate(sources(players)) if "img" in place)
    other = 0 if hostile else 1
    for number in (other, hostile):
        players.nth(number).evaluate("audio => audio.play()")
    window.wait_for_function("n => document.querySelectorAll('audio')[n].currentTime > 0", arg=hostile)
    assert players.evaluate_all("all => all.filter(audio => !audio.paused).length") <= 1


def sources(players):
    return players.evaluate_all("all => all.map(audio => audio.src)")


def test_what_cannot_be_searched_for_is_one_clear_line_and_the_page_goes_on(open_page, tmp_path):
    (tmp_path / "letter.txt").write_text("Dear Sir or Madam")
    (tmp_path / "empty.wav").touch()
    soundfile.write(tmp_path / "long.flac", np.zeros(8000 * 301), 8000)
    window = open_page()
    upload_file = window.get_by_label("choose a recording").set_input_files
    upload_file(tmp_path / "letter.txt")
    assert problem(window) == (
        "letter.txt cannot be used: this browser does not decode it. Choose a wav, flac, mp3 or ogg file."
    )
    soundfile.write(tmp_path / "nan.wav", np.full(32_000, np.nan), 32_000, subtype="FLOAT")
    upload_file(tmp_path / "nan.wav")
    window.get_by_text("This recording holds samples that are no numbers.").wait_for()
    upload_file(tmp_path / "empty.wav")
    window.get_by_text("empty.wav is empty: 0 bytes.").wait_for()
    upload_file(tmp_path / "long.flac")
    window.get_by_text("long.flac is longer than 5 minutes, which is the limit.").wait_for()
    window.get_by_label("Describe a sound").fill("?!… --")
    window.get_by_role("button", name="Search").click()
    window.get_by_text("There is no word in this text.").wait_for()
    assert len(ask(window, "rain")) == 10 and window.get_by_role("alert").count() == 0


@pytest.mark.parametrize("missing", ["text_model.onnx", "search.json", "tokenizers.mjs"])
def test_a_file_that_the_server_lacks_is_one_clear_line(open_page, missing):
    window = open_page(without=missing)
    line = problem(window)
    expected = f"{missing} cannot be loaded: the server answered 404." if "mjs" not in missing else "The search cannot"
    assert expected in line and line.endswith("Reload the page.")
    assert window.locator("form").evaluate("form => form.inert")


def test_a_phone_sees_all_of_the_page_without_scrolling_sideways(open_page, tmp_path):
    window = open_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    ask(window, "a dog barks")
    assert not window.evaluate("document.documentElement.scrollWidth > innerWidth")
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    window.screenshot(path=folder / "static_page_phone.png", full_page=True)


# ------------------------------------------------------------------------------------------- in JavaScript as in Python

LOG_MEL = """async ([samples, parameters]) => {
    const { LogMel } = await import("/log_mel.js");
    return encode(new LogMel(parameters).compute(decode(samples)).values);
}"""
RESAMPLE = """async ([samples, from, to]) => {
    const { resample } = await import("/resample.js");
    return encode(resample(decode(samples), from, to));
}"""
CODE = """() => {
    globalThis.decode = (text) => new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
    globalThis.encode = (values) => {
        const bytes = new Uint8Array(values.buffer);
        return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
    };
}"""


@pytest.fixture
def javascript(browser, server):
    """Calls a function of the page with samples and other arguments, and returns its float32 values."""
    window = browser.new_page()
    window.goto(f"{server}/style.css")  # of the same server, without the page's own script
    window.evaluate(CODE)

    def call(function, samples, *arguments):
        text = base64.b64encode(samples.astype(np.float32).tobytes()).decode()
        return np.frombuffer(base64.b64decode(window.evaluate(function, [text, *arguments])), np.float32)

    yield call
    window.close()


@pytest.mark.parametrize("sizes", [{}, {"n_fft": 4096, "hop_length": 2048}, {"n_fft": 512, "feature_size": 40}])
def test_log_mels_are_those_of_python_to_a_hundredth_of_a_decibel(javascript, noise, sizes):
    extractor = CNN10FeatureExtractor(**sizes)
    for length in (1, 700, 31_999, 50_000):
        samples = noise(length) + 0.2 * np.sin(np.arange(length) ** 1.5 / 50).astype(np.float32)
        samples[length // 2 :] *= 1e-3
        found = javascript(LOG_MEL, samples, extractor.to_dict()).reshape(-1, extractor.feature_size)
        np.testing.assert_allclose(found, extractor.log_mel(samples).numpy(), rtol=0, atol=0.01)


def test_log_mels_of_real_recordings_are_those_of_python(javascript, real_recordings):
    extractor = CNN10FeatureExtractor()
    # Where a frame spans more than 110 dB, Python's float32 differs from float64, in which JavaScript computes: up to
    # 0.06 dB in one of the other recordings.
    for samples in [samples for name, samples in real_recordings.items() if name.endswith(".wav")][::3]:
        found = javascript(LOG_MEL, samples, extractor.to_dict()).reshape(-1, extractor.feature_size)
        np.testing.assert_allclose(found, extractor.log_mel(samples).numpy(), rtol=0, atol=0.01)


@pytest.mark.parametrize("rate", [44_100, 48_000, 16_000, 11_025])
def test_a_resampled_recording_is_that_of_python(javascript, noise, rate):
    samples = soxr.resample(noise(rate // 2), rate, rate, quality="VHQ")
    quiet_above = min(rate, 32_000) * 0.44  # below which both filters are flat
    spectrum = np.fft.rfft(samples)
    spectrum[np.fft.rfftfreq(len(samples), 1 / rate) > quiet_above] = 0
    samples = np.fft.irfft(spectrum, len(samples)).astype(np.float32)
    expected = soxr.resample(samples, rate, 32_000, quality="VHQ")
    found = javascript(RESAMPLE, samples, rate, 32_000)
    assert len(found) == len(expected)
    np.testing.assert_allclose(found[2000:-2000], expected[2000:-2000], rtol=0, atol=1e-4)


# ------------------------------------------------------------------------------------------------------ npm packages

NPM = """#!{python}
import pathlib, sys
folder = pathlib.Path(sys.argv[sys.argv.index("--pack-destination") + 1])
{body}
"""


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Puts a program in the place of npm, which runs some Python, and one package in the place of the page's."""

    def make(body):
        program = tmp_path / "bin" / "npm"
        program.parent.mkdir(exist_ok=True)
        program.write_text(NPM.format(python=sys.executable, body=body))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent))
        package = web.NpmPackage("tool@1.0", "tool-1.0.tgz", hashlib.sha512(b"content").hexdigest())
        monkeypatch.setattr(web, "RUNTIME", {package: {}})
        return package

    return make


def test_npm_fetches_what_is_missing_and_only_once(npm, tmp_path):
    package = npm('(folder / "tool-1.0.tgz").write_bytes(b"content")')
    for _ in range(2):
        path = web.fetch_packages(tmp_path / "npm")[package]
        assert path.read_bytes() == b"content"
        npm("sys.exit(1)")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            'sys.exit("no network")',
            r"tool@1\.0: npm could not fetch it \(no network\); try again, or copy tool-1\.0\.tgz",
        ),
        ("pass", r"tool@1\.0: npm could not fetch it"),
        ('(folder / "tool-1.0.tgz").write_bytes(b"other")', r"tool-1\.0\.tgz: found the SHA512 .* expected"),
    ],
)
def test_a_package_that_npm_does_not_bring_is_an_error(npm, tmp_path, body, message):
    npm(body)
    with pytest.raises(DataError, match=message):
        web.fetch_packages(tmp_path / "npm")
    assert not list((tmp_path / "npm").glob("*.tgz"))


def test_without_npm_the_error_says_what_to_install(npm, tmp_path, monkeypatch):
    npm("pass")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"found no npm, .* install Node\.js, or copy tool-1\.0\.tgz from another"):
        web.fetch_packages(tmp_path / "npm")
