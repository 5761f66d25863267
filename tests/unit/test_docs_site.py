"""`make docs`: the pages build without a broken link, in both languages, with the public interface."""
import re
import sys
from pathlib import Path

import pytest

import faster_rcnn

ROOT = Path(__file__).resolve().parents[2]
INTERFACE = [name for name in faster_rcnn.__all__ if name not in ("Config", "InputError")]


@pytest.fixture(scope="module")
def site(run_command, tmp_path_factory):
    """Folder of the pages, built strictly so that a broken link is an error."""
    folder = tmp_path_factory.mktemp("a site")
    done = run_command([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder], cwd=ROOT,
                       env={"NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stdout + done.stderr
    return folder


def test_every_page_is_there_and_in_the_navigation(site):
    pages = [path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    navigation = (site / "index.html").read_text(encoding="utf-8")
    for page in pages:
        address = re.sub(r"(^|/)README$", r"\1", page)
        assert (site / address / "index.html").is_file(), page
        assert f'href="{address.rstrip("/")}/"' in navigation, page
    assert len(pages) > 20


def test_the_pages_fetch_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        found = re.findall(r'<(?:script|img)[^>]* src="(https?:[^"]+)"|<link rel="stylesheet" href="(https?:[^"]+)"', text)
        assert not found, (page, found)


@pytest.mark.parametrize("page", ["api", "api_CN"])
def test_the_reference_has_the_public_interface(site, page):
    text = (site / page / "index.html").read_text(encoding="utf-8")
    for name in INTERFACE:
        assert re.search(rf'id="([\w.]*\.)?{name}"', text, re.I), name
    assert "scores.per_class" in text       # from a docstring
