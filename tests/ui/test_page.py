"""The page in a real browser, with real keys, clicks and touches."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsers import Site, add, answered, next_question, open_page, question, serving, until
from screens import COLOURS, clip_of, fill, segment, text_query

from prefrl.clips.codec import FORMAT, encode_clip
from prefrl.errors import UserError
from prefrl.feedback import Comparison, Query, Ranking, Rating, Undo
from prefrl.human_ui.actions import Action, Save
from prefrl.human_ui.page.reading import answer_of
from prefrl.human_ui.questions import Item, Question, Standing
from prefrl.human_ui.session import Session
from prefrl.store import PreferenceStore, QueryCard
from prefrl.store.clips import Clip

pytestmark = pytest.mark.slow


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "record.sqlite"
    with PreferenceStore(path) as store:
        fill(store, [(0, 1), (2, 3), (4, 5), (6, 0), (1, 2), (3, 4), (5, 6), (0, 2)])
    return path


@pytest.fixture
def site(record: Path) -> Iterator[Site]:
    with serving(record, instruction="The dark square should run.") as opened:
        yield opened


def colour_of(page: Any, place: int) -> int:
    """Return which clip is seen at a place, by its colour on the screen."""
    from PIL import Image

    box = page.locator(".card").nth(place).bounding_box()
    picture = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    scale = picture.shape[1] / page.viewport_size["width"]
    pixel = picture[int(scale * (box["y"] + 0.2 * box["height"])), int(scale * (box["x"] + box["width"] / 2))]
    return int(np.argmin([np.abs(pixel - colour).sum() for colour in COLOURS]))


def number_of(store: PreferenceStore, answer: Any, place: int) -> int:
    """Return which clip the record says was shown at a place."""
    (card,) = store.cards([answer.query_id])
    ids = {segment(number).id: number for number in range(7)}
    return ids[card.segment_ids[answer.shown[place]]]


def test_a_link_opens_the_page_and_keys_and_clicks_choose_what_is_seen_there(site: Site, desktop: Any) -> None:
    page = open_page(desktop, site.link("anna"), begin=False)
    page.wait_for_selector("#begin")
    assert page.url == site.url, "the token stays neither in the address nor in the history"
    assert "The dark square should run." in page.inner_text("#told")
    (cookie,) = desktop.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    page.keyboard.press("ArrowRight")
    question(page)
    seen = []
    for act in ("ArrowLeft", "click", "ArrowUp", "ArrowDown"):
        asked = question(page)
        seen.append((colour_of(page, 0), colour_of(page, 1)))
        if act == "click":
            page.locator(".card").nth(1).click()
        else:
            page.keyboard.press(act)
        next_question(page, asked)
    given = answered(site.host.store, 4)
    for (left, right), answer in zip(seen, given, strict=True):
        assert (number_of(site.host.store, answer, 0), number_of(site.host.store, answer, 1)) == (left, right)
        assert answer.annotator == "anna" and answer.seconds > 0
        assert abs(answer.answered_at - time.time()) < 60 and answer.shown_at < answer.answered_at
    first, second = given[0].shown[0], given[1].shown[1]
    assert [answer.preference for answer in given] == [float(first == 0), float(second == 0), 0.5, None]
    assert page.wrong == []


def test_what_was_answered_can_be_taken_back_again_and_again(site: Site, desktop: Any) -> None:
    page = open_page(desktop, site.link("anna"))
    for _ in range(2):
        asked = question(page)
        page.keyboard.press("ArrowLeft")
        next_question(page, asked)
    answered(site.host.store, 2)
    page.keyboard.press("z")
    page.keyboard.press("Backspace")
    answered(site.host.store, 4)
    until(page, "prefrl.session.given.length === 0 && prefrl.session.awaited === null")
    question(page)
    page.keyboard.press("ArrowRight")
    entries = answered(site.host.store, 5)
    assert [isinstance(entry, Undo) for entry in entries] == [False, False, True, True, False]
    assert entries[4].query_id == entries[0].query_id and entries[4].shown == entries[0].shown
    assert entries[4].preference == 1 - entries[0].preference


def test_rankings_by_keys_and_by_dragging_ratings_and_texts(tmp_path: Path, desktop: Any) -> None:
    path = tmp_path / "record.sqlite"
    with PreferenceStore(path) as store:
        for session in (0, 1):
            add(store, Query(segments=tuple(segment(n) for n in range(4)), kind="ranking", session=session))
        add(store, Query(segments=(segment(5),), kind="rating", scale=7, session=2))
        for number in (0, 1, 2, 3, 5):
            store.add_clip(segment(number).id, clip_of(number))
        store.add_queries([text_query(2, 3), text_query(3, 4)])
    with serving(path) as site:
        page = open_page(desktop, site.link("anna"))
        for key in ("2", "ArrowUp", "4", "1", "3"):  # the second and the fourth are best, then the first, the third
            page.keyboard.press(key)
        (by_keys,) = answered(site.host.store, 1)
        assert isinstance(by_keys, Ranking)
        assert [by_keys.ranks[by_keys.shown[place]] for place in range(4)] == [2, 1, 3, 1]
        question(page)
        assert page.is_disabled("#done")
        boxes = [page.locator(f".card[data-place='{place}']").bounding_box() for place in (3, 0)]
        (start, end) = [(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in boxes]
        page.mouse.move(*start)
        page.mouse.down()
        page.mouse.move(*end, steps=8)
        page.mouse.up()
        page.locator(".card[data-place='2'] .tie").click()
        page.click("#done")
        by_hand = answered(site.host.store, 2)[1]
        assert [by_hand.ranks[by_hand.shown[place]] for place in range(4)] == [2, 3, 3, 1]
        assert question(page)["graded"]
        page.click("text=6")
        rating = answered(site.host.store, 3)[2]
        assert isinstance(rating, Rating) and rating.rating == 6
        question(page)
        assert "Begin a story." in page.inner_text("#prompt")
        assert page.locator(".card .text").count() == 2
        page.keyboard.press("ArrowRight")
        chosen = answered(site.host.store, 4)[3]
        assert isinstance(chosen, Comparison) and chosen.preference == float(chosen.shown[1] == 0)
        question(page)
        page.keyboard.press("ArrowDown")
        assert answered(site.host.store, 5)[4].value is None
        assert page.wrong == []


def test_clips_play_in_step_and_the_timeline_and_frame_steps_show_the_frame_they_say(site: Site, desktop: Any) -> None:
    page = open_page(desktop, site.link("anna"))
    page.keyboard.press("-")
    time.sleep(1.5)
    moments = page.evaluate("[...document.querySelectorAll('.card video')].map((video) => video.currentTime)")
    assert abs(moments[0] - moments[1]) < 0.1
    page.keyboard.press(" ")
    page.keyboard.press("r")
    page.keyboard.press(" ")
    for _ in range(3):
        page.keyboard.press(".")
    until(page, "prefrl.session.paused && [...document.querySelectorAll('.card video')].every((v) => !v.seeking)")
    frame = page.evaluate("prefrl.session.frame")
    page.locator("#timeline").fill("15")
    until(page, "prefrl.session.frame === 15")
    time.sleep(0.5)
    moments = page.evaluate("[...document.querySelectorAll('.card video')].map((video) => video.currentTime)")
    assert [int(20 * moment) for moment in moments] == [15, 15]
    assert frame >= 3
    assert page.inner_text("#frame") == "16 / 20"


def test_without_a_connection_answers_are_kept_and_come_once_each_when_it_is_back(site: Site, desktop: Any) -> None:
    page = open_page(desktop, site.link("anna"))
    until(page, "prefrl.session.ready.length === 3")
    desktop.set_offline(True)
    for _ in range(3):
        asked = question(page)
        page.keyboard.press("ArrowLeft")
        next_question(page, asked)
    until(page, "document.querySelector('#notice').textContent.includes('3 answers are kept here')")
    assert site.host.store.answers() == []
    time.sleep(3)
    desktop.set_offline(False)
    given = answered(site.host.store, 3)
    until(page, "prefrl.outbox.length === 0")
    assert len({answer.query_id for answer in given}) == 3
    assert all(answer.answered_at < time.time() - 2 for answer in given), "they say when they were given"
    question(page)
    page.keyboard.press("ArrowLeft")
    answered(site.host.store, 4)


def test_an_answer_whose_receipt_was_lost_is_sent_again_and_recorded_once(
    site: Site, desktop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page(desktop, site.link("anna"))
    answer, lost = site.host.answer, []

    def lose(*arguments: Any) -> Any:
        found = answer(*arguments)
        if len(lost) < 2:
            lost.append(found)
            raise UserError("The disk is full.")
        return found

    monkeypatch.setattr(site.host, "answer", lose)
    page.keyboard.press("ArrowLeft")
    answered(site.host.store, 1)
    until(page, "prefrl.outbox.length === 0")
    assert len(lost) == 2
    assert len(site.host.store.answers()) == 1


def test_what_a_closed_page_could_not_send_is_sent_by_the_next_one(site: Site, desktop: Any) -> None:
    link = site.link("anna")
    page = open_page(desktop, link)
    desktop.set_offline(True)
    page.keyboard.press("ArrowLeft")
    until(page, "prefrl.outbox.length === 1")
    page.close()
    desktop.set_offline(False)
    open_page(desktop, site.url, begin=False)
    answered(site.host.store, 1)


def test_two_tabs_of_one_person_never_answer_the_same_question_twice(site: Site, desktop: Any) -> None:
    tabs = [open_page(desktop, site.link("anna")) for _ in range(2)]
    for _ in range(3):
        for tab in tabs:
            tab.bring_to_front()
            if tab.evaluate("document.body.dataset.screen") == "question":
                question(tab)
                tab.keyboard.press("ArrowLeft")
                until(tab, "prefrl.outbox.length === 0")
    given = answered(site.host.store, 5)
    assert len({answer.query_id for answer in given}) == len(given)


def test_going_back_closes_help_and_a_page_left_and_come_back_to_goes_on(site: Site, desktop: Any) -> None:
    page = open_page(desktop, site.link("anna"))
    page.keyboard.press("h")
    page.wait_for_selector("dialog#help[open]")
    page.go_back()
    page.wait_for_selector("dialog#help", state="hidden")
    assert page.url == site.url
    page.keyboard.press("i")
    page.wait_for_selector("dialog#instruction[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog#instruction", state="hidden")
    page.keyboard.press("ArrowLeft")
    answered(site.host.store, 1)
    page.goto("about:blank")
    page.go_back()
    if page.is_visible("#begin"):
        page.click("#begin")
    question(page)
    page.keyboard.press("ArrowLeft")
    given = answered(site.host.store, 2)
    assert given[0].query_id != given[1].query_id


def test_a_phone_shows_everything_without_scrolling_and_touches_choose(site: Site, phone: Any) -> None:
    page = open_page(phone, site.link("anna"))
    for selector in (
        ".card:nth-child(1)",
        ".card:nth-child(2)",
        "#answers .first",
        "#answers .second",
        "#undo",
        "#play",
    ):
        box = page.locator(selector).bounding_box()
        assert box["x"] >= 0 and box["y"] >= 0, selector
        assert box["x"] + box["width"] <= 390 and box["y"] + box["height"] <= 750, selector
        assert min(box["width"], box["height"]) >= 28, selector
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.inner_text("#answers .first").startswith("Upper")
    page.locator(".card").nth(1).tap()
    (by_card,) = answered(site.host.store, 1)
    assert by_card.preference == float(by_card.shown[1] == 0)
    question(page)
    page.locator("#answers .first").tap()
    by_button = answered(site.host.store, 2)[1]
    assert by_button.preference == float(by_button.shown[0] == 0)


def test_no_answer_counts_before_the_clips_were_seen_and_a_key_held_down_answers_once(
    record: Path, desktop: Any
) -> None:
    with serving(record, must_see=0.9) as site:
        page = open_page(desktop, site.link("anna"))
        page.evaluate("prefrl.session.seen = 0, prefrl.session.position = 0")
        page.keyboard.press("ArrowLeft")
        until(page, "document.querySelector('#notice').textContent.startsWith('Look at the clips first')")
        until(page, "prefrl.session.seen >= 0.9")
        page.keyboard.down("ArrowLeft")
        for _ in range(5):
            page.keyboard.down("ArrowLeft")  # as a key that is held down does
        page.keyboard.up("ArrowLeft")
        answered(site.host.store, 1)
        time.sleep(0.5)
        assert len(site.host.store.answers()) == 1


def test_what_does_not_move_is_seen_at_once(tmp_path: Path, desktop: Any) -> None:
    with PreferenceStore(tmp_path / "stills.sqlite") as store:
        query = Query(segments=(segment(0), segment(1)), kind="comparison")
        store.add_queries([query])
        for number in (0, 1):
            made = encode_clip(iter([np.full((64, 64, 3), COLOURS[number], np.uint8)]), 1.0)
            size = {"width": made.width, "height": made.height, "num_frames": made.num_frames}
            store.add_clip(segment(number).id, Clip(data=made.data, format=FORMAT, frames_per_second=1.0, **size))
    with serving(tmp_path / "stills.sqlite", must_see=1.0) as site:
        page = open_page(desktop, site.link("anna"))
        until(page, "prefrl.session.question")
        page.keyboard.press("ArrowLeft")
        (answer,) = answered(site.host.store, 1)
        assert answer.preference == float(number_of(site.host.store, answer, 0) == 0)


def test_letters_count_by_where_they_lie_on_other_alphabets(site: Site, desktop: Any) -> None:
    page = open_page(desktop, site.link("anna"))
    page.evaluate("dispatchEvent(new KeyboardEvent('keydown', { key: '\u0440', code: 'KeyH', bubbles: true }))")
    page.wait_for_selector("dialog#help[open]")


def test_practice_comes_first_and_tells_what_is_right_and_gold_questions_do_not(record: Path, desktop: Any) -> None:
    with PreferenceStore(record) as store:
        names = store.query_ids()
        store.add_answers([Comparison(query_id=name, annotator="owner", preference=1.0) for name in names[:4]])
    with serving(record, known_by="owner", practice=2, pass_mark=1.0, gold_share=0.999999) as site:
        page = open_page(desktop, site.link("anna"), begin=False)
        page.wait_for_selector("#again:not([hidden])")
        page.click("#begin")
        for right, told in ((False, "known otherwise"), (True, "Right"), (True, "Right")):
            asked = question(page)
            assert asked["practice"] and page.is_visible("body.practice")
            first = site.host._of_ticket(person_of(site, "anna"), asked["ticket"])[2].index(0)
            page.keyboard.press("ArrowLeft" if (first == 0) == right else "ArrowRight")
            until(page, f"document.querySelector('#notice').textContent.includes({json.dumps(told)})")
            next_question(page, asked)
        asked = question(page)
        assert not asked["practice"]
        page.keyboard.press("ArrowLeft")
        answered(site.host.store, 8)
        until(page, "prefrl.outbox.length === 0")
        until(page, "document.querySelector('#notice').textContent.startsWith('Answer 1')")
        both = site.host.store.known_answers("anna", "owner")
        assert len(both) == 4, "the first question after practice was one with a known answer"
        assert site.host.store.num_answers(teaching=True) == 4, "none of them teaches"


def person_of(site: Site, name: str) -> Any:
    return site.host.who(site.host.sign_in(site.host.store.links.make(name)))


def test_the_end_shows_what_the_answers_came_to(tmp_path: Path, desktop: Any) -> None:
    with PreferenceStore(tmp_path / "record.sqlite") as store:
        fill(store, [(0, 1)])
        agreement = {"num": 50, "share": 0.9, "low": 0.79, "high": 0.96}
        store.set_facts({"held_out_agreement": agreement, "labels_wanted": 1, "training_state": "finished"})
    rows = [{"num_env_steps": 100 * i, "learned_return": float(i)} for i in range(30)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n{")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "training.mp4").write_bytes(clip_of(3).data)
    with serving(tmp_path / "record.sqlite", folder=tmp_path) as site:
        page = open_page(desktop, site.link("anna"))
        page.keyboard.press("ArrowLeft")
        page.wait_for_selector("body[data-screen=end] svg .curve")
        until(page, "document.querySelector('#progress').innerText.includes('You have given 1 answer')")
        assert "90%" in page.inner_text("#progress")
        until(page, "document.querySelector('.film')?.readyState >= 2")


def test_a_link_that_is_revoked_while_the_page_is_open_ends_it(site: Site, desktop: Any) -> None:
    page = open_page(desktop, site.link("anna"))
    site.host.store.links.revoke("anna")
    page.keyboard.press("ArrowLeft")
    until(page, "document.querySelector('#notice').textContent.startsWith('You are signed out')")
    assert site.host.store.answers() == []
    page.goto(site.link("ben"))
    page.wait_for_selector("#begin:visible")
    assert page.url == site.url


def test_opening_another_persons_link_in_the_same_browser_answers_as_that_person(site: Site, desktop: Any) -> None:
    open_page(desktop, site.link("anna"))
    page = open_page(desktop, site.link("ben"))
    page.keyboard.press("ArrowLeft")
    (given,) = answered(site.host.store, 1)
    assert given.annotator == "ben"


def test_the_page_works_under_a_path_and_after_the_server_was_started_again(record: Path, desktop: Any) -> None:
    with serving(record, place="hub/proxy/8765/") as site:
        page = open_page(desktop, site.link("anna"))
        page.keyboard.press("ArrowLeft")
        answered(site.host.store, 1)
        question(page)
        port = site.port
    page.keyboard.press("ArrowLeft")
    until(page, "document.querySelector('#notice').textContent.startsWith('No connection')")
    with serving(record, place="hub/proxy/8765/", port=port) as site:
        answered(site.host.store, 2)
        until(page, "prefrl.outbox.length === 0")


SESSION_CASES: dict[str, list[str]] = {
    "the first key only begins": ["left", "left"],
    "a pair by digits": ["confirm", "2", "3", "1"],
    "ties and can't tell": ["confirm", "tie", "cannot_tell"],
    "undo of nothing": ["confirm", "undo", "right"],
    "a ranking": ["confirm", "left", "left", "left", "3", "3", "9", "tie", "1", "2"],
    "a ranking with an undo": ["confirm", "left", "left", "left", "1", "2", "undo", "3", "2"],
    "a tie before anything": ["confirm", "left", "left", "left", "tie", "confirm", "1", "2", "3"],
    "a rating": ["confirm", "left", "left", "left", "cannot_tell", "9", "left", "confirm", "4"],
    "no answer to nothing": ["confirm", *["cannot_tell"] * 5, "left", "1"],
}


@pytest.mark.parametrize("case", SESSION_CASES)
def test_window_and_page_make_the_same_of_the_same_keys(case: str, site: Site, desktop: Any) -> None:
    kinds = ["comparison"] * 3 + ["ranking", "rating"]
    nums = {"comparison": 2, "ranking": 3, "rating": 1}
    session = Session(Standing(run="r", environment="e"))
    asked = []
    for number, kind in enumerate(kinds):
        items = tuple(Item(text="a") for _ in range(nums[kind]))
        order = tuple(range(nums[kind]))
        question = Question(query_id=str(number), annotator="anna", kind=kind, items=items, order=order)
        session.offer(question)
        graded = question.answer_kind.graded
        shown = [{"text": "a"}] * nums[kind]
        asked.append({"ticket": str(number), "graded": graded, "scale": 5, "hint": question.hint, "items": shown})
    notices = []
    for press in SESSION_CASES[case]:
        if press.isdigit():
            session.digit(int(press))
        else:
            session.press(Action[press.upper()])
        notices.append(session.notice)
    said = [
        (command.answer.query_id, command.answer.value)
        for command in session.take_commands()
        if isinstance(command, Save)
    ]
    page = open_page(desktop, site.link("anna"), begin=False)
    page.wait_for_selector("#begin")
    found = page.evaluate(
        """([presses, asked]) => {
            const session = new prefrl.Session();
            asked.forEach((question) => session.offer(question));
            const notices = presses.map((press) => {
                if (/[0-9]/.test(press)) session.digit(Number(press)); else session.press(press);
                return session.notice;
            });
            const said = session.takeCommands().map(({ save }) => save);
            return { notices, said: said.map((one) => [one.question.ticket, one.said]) };
        }""",
        [SESSION_CASES[case], asked],
    )
    assert found["notices"] == notices
    assert [(ticket, value_of(kinds[int(ticket)], told)) for ticket, told in found["said"]] == said


def value_of(kind: str, told: dict[str, Any]) -> Any:
    """Return what the page says as the server makes an answer of it."""
    num = {"comparison": 2, "ranking": 3, "rating": 1}[kind]
    card = QueryCard(
        id="q", kind=kind, session=0, num_env_steps=0, scale=5, instruction="", overlap=1, repeat_of=None,
        reserved_for=None, segment_ids=tuple(map(str, range(num))), responses=(),
    )  # fmt: skip
    return answer_of(card, told, tuple(range(num)), annotator="anna").value
