"""What the documents point to is there."""

import fnmatch
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
SCRIPT = re.compile(r"[\w/*.-]*[\w*]\.(?:py|yaml)\b")
PATH = re.compile(r"(?<![\w/.-])(?:docs|model_cards|modeling_cnn10bert|scripts|tests)/[\w./*-]*")
# What documents name that a user has or makes, or that is no longer there.
NOT_IN_THE_REPOSITORY = {
    "ENTRY.py",
    "RECIPE.yaml",
    "OTHER.yaml",
    "best.yaml",
    "prepare_NAME.py",
    "scripts/prepare_NAME.py",
}


def _documents(files):
    return [name for name in files if name.endswith(".md")]


def anchors_of(text):
    """The anchors that GitHub gives to the headings of a Markdown text, and those of `<a id="...">`."""
    text = FENCE.sub("", text)
    headings = re.findall(r"^#+ +(.+?)\s*$", text, re.MULTILINE)
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    of_headings = {
        slug if not (before := slugs[:number].count(slug)) else f"{slug}-{before}" for number, slug in enumerate(slugs)
    }
    return of_headings | set(re.findall(r'<a id="([^"]+)"></a>', text))


def broken_links(path):
    """The relative links and pictures of a document that lead nowhere."""
    broken = []
    for target in LINK.findall(FENCE.sub("", path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:|\{", target):  # of the web, or a template's
            continue
        name, _, anchor = target.partition("#")
        found = path.parent / name if name else path
        if not found.exists() or (anchor and anchor not in anchors_of(found.read_text(encoding="utf-8"))):
            broken.append(target)
    return broken


def test_every_link_and_picture_of_every_document_exists(files):
    documents = _documents(files)
    assert {"README.md", "CONTRIBUTING.md", "docs/deviations.md", "docs/results.md"} <= set(documents)
    assert {name: broken for name in documents if (broken := broken_links(ROOT / name))} == {}


def test_a_link_to_nowhere_is_found(tmp_path):
    (tmp_path / "other.md").write_text('# A `title`, of this\n\n<a id="old"></a>\n\n## Twice\n\n## Twice\n')
    links = "[a](other.md#a-title-of-this) ![b](b.png) [c](other.md#twice-1) [d](other.md#twice-2) [e](https://e.org/x)"
    (tmp_path / "here.md").write_text(f"# Here\n\n{links} [f](#here) [o](other.md#old) [g](#there)\n")
    assert broken_links(tmp_path / "here.md") == ["b.png", "other.md#twice-2", "#there"]


def test_every_script_and_recipe_that_a_document_names_is_there(files):
    unknown = {}
    for name in _documents(files):
        named = set(SCRIPT.findall((ROOT / name).read_text(encoding="utf-8"))) - NOT_IN_THE_REPOSITORY
        if missing := sorted(script for script in named if not _is_there(script, files)):
            unknown[name] = missing
    assert unknown == {}


def _is_there(script, files):
    """Whether a file's path ends like this; `*` stands for anything."""
    pattern = "*/" + script.lstrip("/")
    return any(fnmatch.fnmatch("/" + name, pattern) for name in files)


def test_every_folder_and_file_that_readme_and_contributing_name_by_their_path_is_there():
    for name in ("README.md", "CONTRIBUTING.md"):
        paths = {path.rstrip(".") for path in PATH.findall((ROOT / name).read_text(encoding="utf-8"))}
        paths -= NOT_IN_THE_REPOSITORY
        assert len(paths) > 5
        assert [path for path in sorted(paths) if not list(ROOT.glob(path))] == [], name
