"""CITATION.cff is a Citation File Format 1.2.0 file, and says of the software and the paper what is so."""

import re
from pathlib import Path

import pytest
import yaml

import modeling_cnn10bert

ROOT = Path(__file__).resolve().parents[2]
# https://github.com/citation-file-format/citation-file-format/blob/1.2.0/schema-guide.md
REQUIRED = {"cff-version", "message", "title", "authors"}
KEYS = REQUIRED | {
    "abstract", "commit", "contact", "date-released", "doi", "identifiers", "keywords", "license", "license-url",
    "preferred-citation", "references", "repository", "repository-artifact", "repository-code", "type", "url",
    "version",
}  # fmt: skip
REFERENCE_KEYS = {
    "authors", "collection-title", "conference", "doi", "editors", "end", "month", "pages", "publisher", "start",
    "title", "type", "url", "year",
}  # fmt: skip
PERSON_KEYS = {"affiliation", "alias", "email", "family-names", "given-names", "name-particle", "orcid", "website"}
ENTITY_KEYS = {"name", "alias", "email", "location", "website"}


@pytest.fixture(scope="module")
def citation():
    return yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def _is_author(author):
    if "name" in author:
        return author.keys() <= ENTITY_KEYS
    return bool(author) and author.keys() <= PERSON_KEYS


def test_it_has_the_keys_that_the_format_requires_and_no_unknown_one(citation):
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert REQUIRED <= citation.keys() <= KEYS
    assert all(isinstance(citation[key], str) and citation[key] for key in REQUIRED - {"authors"})
    assert citation["authors"] and all(_is_author(author) for author in citation["authors"])
    assert len(set(citation["keywords"])) == len(citation["keywords"])


def test_the_software_is_this_one(citation):
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert citation["title"] == re.search(r'^name = "(.+)"$', project, re.MULTILINE)[1]
    assert citation["license"] == re.search(r'^license = "(.+)"$', project, re.MULTILINE)[1]
    version = re.search(r'^version = "(.+)"$', project, re.MULTILINE)[1]
    assert version == str(citation["version"]) == modeling_cnn10bert.__version__


def test_the_paper_is_the_one_that_the_documents_name(citation, readme):
    paper = citation["preferred-citation"]
    assert {"type", "title", "authors"} <= paper.keys() <= REFERENCE_KEYS
    assert paper["type"] == "conference-paper" and paper["conference"]["name"]
    assert paper["year"] == 2022
    assert [author["family-names"] for author in paper["authors"]] == ["Primus", "Widmer"]
    assert all(_is_author(author) for author in paper["authors"])
    plain = " ".join(readme.replace("\\&", "&").replace("*", "").split())
    assert plain.count(paper["title"]) == 2, (
        "the README's first lines and its BibTeX entry name the paper as CITATION.cff"
    )
    assert " ".join(paper["title"].split()) in " ".join(
        (ROOT / "docs" / "deviations.md").read_text(encoding="utf-8").replace("*", "").split()
    )
