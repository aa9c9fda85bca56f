"""The site of docs/ is built without a warning, has every page, and loads nothing from elsewhere."""

import importlib.util
import re
import subprocess
import sys

import pytest
from conftest import ROOT

NEEDED = ("mkdocs", "material", "mkdocstrings")


def test_every_document_is_in_the_menu():
    menu = re.findall(r"(?m)^ +- .+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text())
    outside = {"index.md", "changelog.md", "contributing.md", "benchmarks.md", "experiments.md"}
    assert sorted(menu) == sorted(outside | {path.name for path in (ROOT / "docs").glob("*.md")})


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if not all(map(importlib.util.find_spec, NEEDED)):
        pytest.skip("the extra docs is not installed (pip install -e '.[docs]')")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_document_is_a_page_and_in_the_menu(site):
    outside = {"index", "changelog", "contributing", "benchmarks", "experiments"}
    pages = {path.stem for path in site.glob("*.html")} - {"404"}
    assert pages == outside | {path.stem for path in (ROOT / "docs").glob("*.md")}
    menu = (site / "index.html").read_text()
    assert [page for page in pages - {"index"} if f'href="{page}.html"' not in menu] == []


def test_links_out_of_docs_lead_to_pages_and_files_of_the_site(site):
    for page in ("index", "experiments", "benchmarks", "studies"):
        links = re.findall(r'(?:href|src)="([^"#:]+)(?:#[^"]*)?"', (site / f"{page}.html").read_text())
        assert [link for link in links if link not in (".", "..") and not (site / link).exists()] == []
    assert 'href="files/experiments/debug.yaml"' in (site / "experiments.html").read_text()


def test_a_page_loads_nothing_from_elsewhere(site):
    for page in site.glob("*.html"):
        text = page.read_text()
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="([^"]+)"|<link[^>]* rel="stylesheet"[^>]*', text)
        assert [url for url in loaded if url.startswith(("http:", "https:", "//"))] == []
        assert "fonts.googleapis" not in text


def test_the_python_page_has_the_docstrings(site):
    text = (site / "python.html").read_text()
    assert "Write the report of a folder with runs below it" in text
