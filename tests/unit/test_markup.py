"""Texts as they were written: Markdown as blocks, code with its spaces, and where two texts differ."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from prefrl.human_ui.markup import as_blocks, differences


def test_text_without_signs_of_markdown_stays_letter_by_letter() -> None:
    text = "def f(a_b, c_d):\n    return a_b * c_d\n\n2 * 3 = 6; snake_case_name"
    assert as_blocks(text) == [{"kind": "plain", "text": text}]


def test_headings_lists_tables_quotes_and_code_are_told_apart() -> None:
    text = "# H\n\nSome **bold**, *soft* and `code`\n\n- a\n  1. b\n\n> said\n\n"
    text += "| x | y |\n|---|---|\n| 1 | 2 |\n\n```py\n  c\n```"
    blocks = as_blocks(text)
    assert [block["kind"] for block in blocks] == ["heading", "text", "item", "item", "quote", "table", "code"]
    assert [style for _, style in blocks[1]["spans"] if style] == ["strong", "em", "code"]
    assert [(block["mark"], block["depth"]) for block in blocks[2:4]] == [("•", 1), ("1.", 2)]
    assert blocks[5]["rows"][1] == [[("1", "")], [("2", "")]]
    assert blocks[6]["text"] == "  c"


def test_html_links_and_images_stay_letters() -> None:
    text = (
        "**x** <script>alert(1)</script> [a](javascript:alert(1)) ![b](http://example.org/p.png) <http://example.org>"
    )
    (block,) = as_blocks(text)
    assert "".join(part for part, _ in block["spans"]) == text.replace("**", "")


def test_code_without_fences_keeps_its_spaces() -> None:
    (block,) = as_blocks("Use `x`:\ndef f():\n    return 1")
    assert block == {"kind": "plain", "text": "Use `x`:\ndef f():\n    return 1"}


def test_a_list_item_that_begins_with_code_gives_its_mark_to_nobody_else() -> None:
    blocks = as_blocks("- ```\n  c\n  ```\n\nafter **it**")
    assert [block["kind"] for block in blocks] == ["code", "text"]


def test_words_that_only_one_text_has_are_marked() -> None:
    first, second = differences(["the cat sat", "the dog sat"])
    assert first == [("the ", False), ("cat", True), (" sat", False)]
    assert [part for part, alone in second if alone] == ["dog"]
    assert differences(["a", "b", "c"]) == [[("a", False)], [("b", False)], [("c", False)]]


@given(st.text(max_size=60), st.text(max_size=60))
def test_parts_make_up_the_texts_and_what_is_unmarked_is_in_both(first: str, second: str) -> None:
    parts = differences([first, second])
    assert ["".join(part for part, _ in one) for one in parts] == [first, second]
    common = ["".join(part for part, alone in one if not alone) for one in parts]
    assert common[0] == common[1]


@given(st.text(alphabet="ab*_`#->|[]()!<\n 1.\\", max_size=80))
def test_any_text_has_blocks(text: str) -> None:
    for block in as_blocks(text):
        assert block["kind"] in ("plain", "text", "heading", "code", "item", "quote", "rule", "table")
