"""The page of benchmarks: each bench replaces its own section, and nothing else."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from bench import page

NAMES = st.from_regex(r"[a-z]+(-[a-z]+)*", fullmatch=True)
BODIES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="<"), min_size=1)


@given(st.dictionaries(NAMES, BODIES), NAMES, BODIES)
def test_a_bench_replaces_its_own_section_and_no_other(others: dict[str, str], name: str, text: str) -> None:
    whole = page.HEAD
    for other, body in others.items():
        whole = page.replaced(whole, other, body)
    written = page.replaced(whole, name, text)
    assert page.replaced(written, name, text) == written
    wanted = {**others, name: text}
    assert written == page.HEAD + "".join(f"\n<!-- make {one} -->\n{body}\n" for one, body in wanted.items())


def test_the_page_is_made_of_what_make_can_write() -> None:
    text = page.PAGE.read_text()
    sections = re.findall(r"^<!-- make (\S+) -->$", text, re.MULTILINE)
    assert sections[0] == "bench"
    targets = re.findall(r"^(bench[a-z-]*):.*## ", (page.PAGE.parents[1] / "Makefile").read_text(), re.MULTILINE)
    assert set(sections) <= set(targets)
    assert page.replaced(text, "bench", text.split("<!-- make bench -->\n")[1].split("<!-- make ")[0]) == text
