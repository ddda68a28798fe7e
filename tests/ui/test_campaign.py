"""A campaign in a real browser: consent, examples, reasons, flags, notes, strengths, rests, limits, the way back,
withdrawal, texts as they were written, and the owner's page."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from browsers import Site, add, answered, next_question, open_page, question, serving, until
from screens import clip_of, fill, segment

from prefrl.feedback import Comparison, Edit, Query, Response, Strength
from prefrl.human_ui.examples import pin_example
from prefrl.store import PreferenceStore

pytestmark = pytest.mark.slow

CONSENT = "You compare short clips for research.\n\nYou may stop at any time, and have everything removed."
PICTURES = os.environ.get("PREFRL_PICTURES")  # a folder for pictures of what these tests see, to be looked at


def picture(page: Any, name: str) -> None:
    if PICTURES:
        page.screenshot(path=f"{PICTURES}/{name}.png")


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "record.sqlite"
    with PreferenceStore(path) as store:
        fill(store, [(0, 1), (2, 3), (4, 5), (6, 0), (1, 2), (3, 4), (5, 6), (0, 2)])
    return path


def test_nothing_is_asked_before_consent_whose_version_is_kept_and_withdrawal_removes_everything(
    record: Path, desktop: Any
) -> None:
    with serving(record, consent=CONSENT, instruction="The dark square should run.") as site:
        store = site.host.store
        page = open_page(desktop, site.link("anna"), begin=False)
        page.wait_for_selector("#agree:visible")
        assert "short clips for research" in page.inner_text("#told")
        for key in ("ArrowLeft", " ", "Enter"):
            page.keyboard.press(key)
        assert store.annotators() == {} and not page.is_visible("#begin")
        picture(page, "consent")
        page.click("#agree")
        page.click("#begin")
        question(page)
        (version,) = store.participants.consents()["anna"]
        assert store.participants.texts()[version] == CONSENT
        asked = question(page)
        page.keyboard.press("ArrowLeft")
        next_question(page, asked)
        answered(store, 1)
        page.keyboard.press("h")
        page.click("#withdrawButton")
        page.wait_for_selector("dialog#withdraw[open]")
        picture(page, "withdraw")
        page.click("#withdrawSurely")
        until(page, "document.body.dataset.screen === 'withdrawn'")
        picture(page, "withdrawn")
        assert "anna" not in store.annotators() and store.participants.consents() == {}
        assert [entry.kind for _, entry in store.answers(standing=True)] == [] and store.links.all() == []
        page.goto(site.url)
        page.wait_for_selector("text=by invitation")
        assert page.wrong == []


def test_a_consent_that_changed_is_asked_for_again(record: Path, desktop: Any) -> None:
    with serving(record, consent=CONSENT) as site:
        page = open_page(desktop, site.link("anna"), begin=False)
        page.click("#agree")
        page.wait_for_selector("#begin:visible")
        port = site.port
    with serving(record, consent=CONSENT + " New.", port=port) as site:
        page.goto(site.url)
        page.wait_for_selector("#agree:visible")


def test_reasons_flags_and_notes_go_with_the_answer(record: Path, desktop: Any) -> None:
    with serving(record) as site:
        page = open_page(desktop, site.link("anna"))
        for act in ("a", "B", "click"):
            asked = question(page)
            if act == "click":
                page.click("#remarks >> text=Unclear what for")
            else:
                page.keyboard.press(act.lower())
            next_question(page, asked)
        asked = question(page)
        page.keyboard.press("m")
        page.keyboard.press("n")
        page.wait_for_selector("dialog#comment[open]")
        page.fill("#commentText", "It limps; h and z are letters here.")
        picture(page, "note")
        page.click("#saveComment")
        page.wait_for_selector("dialog#comment", state="hidden")
        until(page, "document.querySelector('#remarks .on')")
        picture(page, "flagged")
        page.keyboard.press("ArrowRight")
        next_question(page, asked)
        given = answered(site.host.store, 4)
        assert [(a.value, a.reason) for a in given[:3]] == [(None, "alike"), (None, "broken"), (None, "unclear")]
        assert (given[3].flagged, given[3].comment) == (True, "It limps; h and z are letters here.")
        question(page)
        page.keyboard.press("ArrowLeft")
        assert not answered(site.host.store, 5)[4].flagged
        assert page.wrong == []


def test_how_much_better_is_said_by_numbers_buttons_or_arrows(tmp_path: Path, desktop: Any, phone: Any) -> None:
    record = tmp_path / "record.sqlite"
    with PreferenceStore(record) as store:
        for number in range(12):
            shown = segment(number % 7), segment((number + 1 + number // 7) % 7)
            add(store, Query(segments=shown, kind=Strength, scale=7, session=number))
        for number in range(7):
            store.add_clip(segment(number).id, clip_of(number))
    with serving(record) as site:
        page = open_page(desktop, site.link("anna"))
        picture(page, "strength")
        for act in ("1", "4", "ArrowRight", "Right slightly better"):
            asked = question(page)
            if len(act) > 12:
                page.click(f"text={act}")
            else:
                page.keyboard.press(act)
            next_question(page, asked)
        given = answered(site.host.store, 4)
        signs = [1 if answer.shown[0] == 0 else -1 for answer in given]
        degrees = [sign * answer.degree for sign, answer in zip(signs, given, strict=True)]
        assert degrees == [3, 0, -2, -1]
        small = open_page(phone, site.link("ben"))
        picture(small, "strength-phone")
        small.locator("#answers .second").last.tap()
        last = answered(site.host.store, 5)[4]
        assert last.degree == (-3 if last.shown[0] == 0 else 3)
        assert page.wrong == [] and small.wrong == []


def test_examples_are_seen_beside_the_instruction(record: Path, desktop: Any) -> None:
    with PreferenceStore(record) as store:
        first = store.query_ids()[0]
        pin_example(store, first, 0, True, "runs far")
        pin_example(store, first, 1, False, "stands")
    with serving(record, instruction="It should run.") as site:
        page = open_page(desktop, site.link("anna"), begin=False)
        until(page, "[...document.querySelectorAll('#beside video')].filter((v) => v.readyState >= 2).length === 2")
        assert page.locator("#beside figcaption").all_inner_texts() == ["Good: runs far", "Bad: stands"]
        picture(page, "examples")
        page.click("#begin")
        question(page)
        page.keyboard.press("i")
        page.wait_for_selector("dialog#instruction[open] figure.bad")
        assert page.wrong == []


def test_a_rest_is_proposed_and_its_time_does_not_count(record: Path, desktop: Any) -> None:
    with serving(record, break_after=20) as site:
        page = open_page(desktop, site.link("anna"))
        page.evaluate("prefrl.session.restedAt -= 1300")
        asked = question(page)
        page.keyboard.press("ArrowLeft")
        until(page, "document.body.dataset.screen === 'break'")
        picture(page, "rest")
        time.sleep(1.2)
        page.keyboard.press("ArrowLeft")
        next_question(page, asked)
        question(page)
        page.keyboard.press("ArrowRight")
        assert answered(site.host.store, 2)[1].seconds < 1.2


def test_a_participant_of_a_study_answers_so_many_and_is_led_back(record: Path, desktop: Any) -> None:
    with serving(record, limit=2, completion_code="C0DE77") as site:
        store = site.host.store
        token = store.links.make("pilot", "study")
        at = f"{site.url}?PROLIFIC_PID=5f00aa&STUDY_ID=st1&SESSION_ID=se1#{token}"
        page = open_page(desktop, at, begin=False)
        page.wait_for_selector("#begin:visible")
        assert page.url == site.url, "nothing of the platform stays in the address"
        page.click("#begin")
        for _ in range(2):
            asked = question(page)
            page.keyboard.press("ArrowLeft")
            next_question(page, asked)
        until(page, "document.body.dataset.screen === 'end'")
        page.wait_for_selector("#code")
        picture(page, "completed")
        assert page.inner_text("#code") == "C0DE77"
        assert page.get_attribute("#beside a", "href") == "https://app.prolific.com/submissions/complete?cc=C0DE77"
        given = answered(store, 2)
        assert {answer.annotator for answer in given} == {"prolific-5f00aa"}
        found = store.participants.of("prolific-5f00aa")
        assert (found.study, found.session) == ("st1", "se1") and found.completed_at is not None
        page.goto(site.url)
        page.wait_for_selector("#code")
        other = desktop.browser.new_context()
        stranger = other.new_page()
        stranger.goto(f"{site.url}?PROLIFIC_PID=5f00aa&STUDY_ID=st1&SESSION_ID=other#{token}")
        stranger.wait_for_selector("text=begun in another session")
        stranger.goto("about:blank")
        stranger.goto(f"{site.url}#{token}")
        stranger.wait_for_selector("text=PROLIFIC_PID is missing")
        other.close()
        assert page.wrong == []


MARKDOWN = """# Sorting
Use **sorted**:

```python
def first(items):
    return sorted(items)[0]
```

- quick
- short

| n | time |
|---|------|
| 9 | 1 ms |
"""
PLAIN = "def first(items):\n    return items[0]\n\nΓειά 你好 नमस्ते <b>not bold</b>"  # noqa: RUF001


def texts_record(path: Path) -> Path:
    with PreferenceStore(path) as store:
        responses = [Response(prompt="Smallest of a list?", text=text) for text in (MARKDOWN, PLAIN)]
        add(store, Query(responses=tuple(responses)))
        near = [Response(prompt="Say it.", text=f"The {one} sat on the mat.") for one in ("cat", "dog")]
        add(store, Query(responses=tuple(near), session=1))
    return path


def test_texts_are_seen_as_they_were_written_marked_where_they_differ_and_edited(tmp_path: Path, desktop: Any) -> None:
    with serving(texts_record(tmp_path / "record.sqlite")) as site:
        page = open_page(desktop, site.link("anna"))
        asked = question(page)
        picture(page, "texts")
        assert page.inner_text(".card .text pre") == "def first(items):\n    return sorted(items)[0]"
        assert page.locator(".card .text h3").inner_text() == "Sorting"
        assert page.locator(".card .text td").all_inner_texts() == ["9", "1 ms"]
        assert page.locator(".card .text strong").all_inner_texts() == ["sorted"]
        assert "    return items[0]" in page.locator(".card .text .plain").text_content()
        assert "<b>not bold</b>" in page.locator(".card .text .plain").text_content()
        page.keyboard.press("ArrowLeft")
        next_question(page, asked)
        shown = question(page)["items"]
        page.keyboard.press("d")
        until(page, "document.querySelectorAll('.card mark').length === 2")
        assert sorted(page.locator(".card mark").all_inner_texts()) == ["cat", "dog"]
        picture(page, "differences")
        page.locator(".card .editing").nth(0).click()
        page.fill("#editText", "The cow sat on the mat.")
        page.fill("#editComment", "A cow is meant.")
        picture(page, "edit")
        page.click("#saveEdit")
        page.wait_for_selector("dialog#edit", state="hidden")
        entries = answered(site.host.store, 2)
        (edit,) = [entry for entry in entries if isinstance(entry, Edit)]
        assert (edit.text, edit.comment) == ("The cow sat on the mat.", "A cow is meant.")
        (card,) = site.host.store.cards([edit.query_id])
        assert card.responses[edit.item].text == shown[0]["text"]
        page.locator(".card .editing").nth(1).click()
        page.click("#saveEdit")
        page.wait_for_selector("#editTold:has-text('is empty, or the response itself')")
        page.keyboard.press("Escape")
        page.wait_for_selector("dialog#edit", state="hidden")
        page.keyboard.press("ArrowRight")
        assert isinstance(answered(site.host.store, 3)[2], Comparison)
        assert page.wrong == []


def test_the_owner_sees_everybody_settles_disagreements_and_pins_examples(tmp_path: Path, desktop: Any) -> None:
    record = tmp_path / "record.sqlite"
    with PreferenceStore(record) as store:
        names = []
        for number in range(4):
            shown = segment(number), segment(number + 1)
            names.append(add(store, Query(segments=shown, session=number, overlap=2)))
        for number in range(5):
            store.add_clip(segment(number).id, clip_of(number))
        for name in ("anna", "ben"):
            store.add_annotator(name, "person")
        store.add_answers(
            [
                *(Comparison(query_id=name, annotator="anna", preference=1.0, seconds=2) for name in names),
                Comparison(query_id=names[0], annotator="ben", preference=0.0, flagged=True, comment="odd"),
                Comparison(query_id=names[1], annotator="ben", preference=None, seconds=1, reason="alike"),
                Comparison(query_id=names[2], annotator="ben", preference=1.0, seconds=1),
            ]
        )  # fmt: skip
    with serving(record) as site:
        page = desktop.new_page()
        page.goto(site.link("boss", "owner"))
        page.wait_for_selector("#begin:visible")
        page.click("#peopleButton")
        page.wait_for_selector("#people table")
        rows = page.locator("#people tr").all_inner_texts()
        assert [row.split("\t")[0] for row in rows] == ["Name", "anna", "ben", "boss"]
        page.wait_for_selector("#numDisagreements:text-is('(1)')")
        page.wait_for_selector("#numRemarks:text-is('(2)')")
        assert "odd" in page.inner_text("#remarked") and "reason: alike" in page.inner_text("#remarked")
        page.wait_for_selector("#disagreements video")
        time.sleep(0.5)
        picture(page, "dashboard")
        page.once("dialog", lambda dialog: dialog.accept("upright"))
        page.click("#disagreements >> text=Good example")
        page.wait_for_selector("text=Good example ✓")
        assert [one["note"] for one in site.host.store.facts()["examples"]] == ["upright"]
        page.click("#disagreements p:has(b:text-is('ben')) button")
        page.wait_for_selector("#disagreements article.settled")
        final = [a for _, a in site.host.store.answers() if a.adjudicates]
        assert [(a.annotator, a.query_id, a.preference) for a in final] == [("boss", names[0], 0.0)]
        context = desktop.browser.new_context()
        open_page(context, site.link("anna"), begin=False).wait_for_selector("#begin:visible")
        for path in ("dashboard", "people", "disagreements", "remarks"):
            assert context.request.get(site.url + path).status == 403
        context.close()


def test_a_phone_shows_remarks_and_what_is_new_without_scrolling_sideways(record: Path, phone: Any) -> None:
    with serving(record, consent=CONSENT) as site:
        page = open_page(phone, site.link("anna"), begin=False)
        page.locator("#agree").tap()
        page.locator("#begin").tap()
        question(page)
        picture(page, "phone")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        box = page.locator(".card").nth(0).bounding_box()
        assert box["height"] > 120
        page.locator("#remarks button").first.tap()
        assert answered(site.host.store, 1)[0].reason == "alike"


def person_of(site: Site, name: str) -> Any:
    return site.host.who(site.host.sign_in(site.host.store.links.make(name)))
