"""The pages that show the way: short, complete, and true about files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(page for page in ROOT.glob("docs/**/*.md") if page.name != "log.md")])


@pytest.mark.parametrize(
    ("page", "most"), [("README.md", 130), ("docs/architecture.md", 150), ("docs/reading.md", 150)]
)
def test_the_first_pages_stay_short(page: str, most: int) -> None:
    assert len((ROOT / page).read_text(encoding="utf-8").splitlines()) <= most


def test_the_map_has_every_file_once() -> None:
    """A file of the packages has one line, ``- `path`: what it holds``."""
    text = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- `((?:search|objectives|paretune)/[^`]+)`", text, re.MULTILINE)
    there = {
        path.relative_to(ROOT).as_posix()
        for package in ("search", "objectives", "paretune")
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".typed", ".j2", ".css", ".js")
    }
    assert sorted(listed) == sorted(there)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_paths_of_a_page_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = [each for each in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in each]
    lost = [target for target in targets if not (page.parent / target).exists()]
    paths = re.findall(r"`((?:search|objectives|paretune|tests|conf|benchmarks)/[\w/]+\.\w+)`", text)
    history = page.name == "CHANGELOG.md" or page.parent.name in ("decisions", "benchmarks")
    assert lost + ([] if history else [path for path in paths if not (ROOT / path).exists()]) == []
