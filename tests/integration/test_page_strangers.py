"""What strangers, and people with a link of their own, cannot do to the page: each attack is refused."""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ui"))
pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")

from browsers import Site, serving
from screens import fill

from prefrl.human_ui.page.app import Bucket
from prefrl.store import PreferenceStore

Answered = tuple[int, dict[str, str], bytes]


class Client:
    """A browser without a window: a cookie, and the page's secret."""

    def __init__(self, site: Site, name: str | None = None) -> None:
        self.site, self.cookie, self.csrf, self.token = site, "", "", ""
        if name is not None:
            self.token = site.host.store.links.make(name)
            self.enter(self.token)

    def enter(self, token: str) -> None:
        status, headers, _ = self.post("enter", {"token": token})
        assert status == 200
        self.cookie = headers["set-cookie"].partition(";")[0]
        settings = self.get("")[2].decode().partition('id="settings">')[2].partition("</script>")[0]
        self.csrf = json.loads(settings)["csrf"]

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answered:
        connection = http.client.HTTPConnection("127.0.0.1", self.site.port, timeout=30)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookie:
            given.setdefault("cookie", self.cookie)
        try:
            connection.request(method, f"/{path}", body, given)
            found = connection.getresponse()
            return found.status, {k.lower(): v for k, v in found.getheaders()}, found.read()
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answered:
        return self.request("GET", path, **headers)

    def post(self, path: str, said: Any, **headers: str) -> Answered:
        headers = {"content_type": "application/json", "x_prefrl": self.csrf, **headers}
        return self.request("POST", path, json.dumps(said).encode(), **headers)

    def next(self, want: int = 1) -> list[dict[str, Any]]:
        status, _, content = self.post("next", {"want": want})
        assert status == 200, content
        questions: list[dict[str, Any]] = json.loads(content)["questions"]
        return questions

    def answer(self, question: dict[str, Any], **said: Any) -> Answered:
        return self.post("answer", {"ticket": question["ticket"], "order": [[0], [1]], "seconds": 2, "seen": 1, **said})


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with PreferenceStore(tmp_path / "record.sqlite") as store:
        fill(store, [(0, 1), (2, 3), (4, 5), (6, 0), (1, 2)])
    with serving(tmp_path / "record.sqlite") as opened:
        yield opened


def answers(site: Site) -> int:
    return len(site.host.store.answers())


def test_a_stranger_reads_nothing_but_the_page_that_asks_for_a_link(site: Site) -> None:
    anna, stranger = Client(site, "anna"), Client(site)
    clip = anna.next()[0]["items"][0]["clip"]
    status, headers, content = stranger.get("")
    assert status == 401 and b"by invitation" in content
    for secret in (b"a run", b"anna", b"settings", b"static/"):
        assert secret not in content
    assert headers["referrer-policy"] == "no-referrer" and headers["cache-control"] == "no-store"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert "access-control-allow-origin" not in headers and "server" not in headers
    paths = [
        "static/app.js",
        "static/style.css",
        "progress",
        "people",
        "film",
        clip,
        "clips/x",
        "next",
        "docs",
        "openapi.json",
    ]
    for path in paths:
        status, _, content = stranger.get(path)
        assert status == 401 and b"Open the link" in content, path
    for path in ("next", "answer", "undo", "release", "leave", "anything"):
        assert stranger.post(path, {"want": 1})[0] == 401, path


@pytest.mark.parametrize("token", ["", "x", "a" * 32, None, 5, ["a"], {"$ne": ""}, "' OR 1=1 --", "\ud800", "é" * 3000])
def test_nobody_comes_in_without_a_link(site: Site, token: Any) -> None:
    status, headers, _ = Client(site).post("enter", {"token": token})
    assert status == 401 and "set-cookie" not in headers


def test_a_forged_or_changed_cookie_is_nobodys(site: Site) -> None:
    anna = Client(site, "anna")
    name, _, value = anna.cookie.partition("=")
    for forged in ("", "x", value[:-1], value + "A", value.replace(".", "..", 1), "a.b.c", "🐟", value.swapcase()):
        stranger = Client(site)
        stranger.cookie, stranger.csrf = f"{name}={forged}".encode("latin-1", "replace").decode("latin-1"), anna.csrf
        assert stranger.get("progress")[0] == 401, forged


def test_a_revoked_link_lets_nobody_in_and_its_cookie_can_not_be_used_again(site: Site) -> None:
    anna = Client(site, "anna")
    (question,) = anna.next()
    assert site.host.store.links.revoke("anna") == 1
    assert anna.answer(question)[0] == 401
    assert anna.get(question["items"][0]["clip"])[0] == 401
    assert Client(site).post("enter", {"token": anna.token})[0] == 401
    assert answers(site) == 0


def test_nobody_answers_sees_or_takes_back_what_is_anothers(site: Site) -> None:
    anna, ben = Client(site, "anna"), Client(site, "ben")
    (hers,), (his,) = anna.next(), ben.next()
    assert anna.get(hers["items"][0]["clip"])[0] == 200
    assert ben.get(hers["items"][0]["clip"])[0] == 404
    assert ben.answer(hers)[0] == 403
    assert ben.post("next", {"held": [hers["ticket"]]})[0] == 403
    assert ben.post("release", {"held": [hers["ticket"]]})[0] == 403
    assert anna.answer(hers)[0] == 200
    assert ben.post("undo", {"ticket": hers["ticket"]})[0] == 403
    assert ben.post("undo", {"ticket": his["ticket"]})[0] == 409
    assert ben.get("people")[0] == 403
    assert answers(site) == 1


def test_an_answer_sent_again_changes_nothing(site: Site) -> None:
    anna = Client(site, "anna")
    (question,) = anna.next()
    assert anna.answer(question)[0] == 200
    assert json.loads(anna.answer(question, order=[[1], [0]])[2])["again"] is True
    assert anna.post("undo", {"ticket": question["ticket"]})[0] == 200
    assert anna.post("undo", {"ticket": question["ticket"]})[0] == 200, "its receipt was lost"
    entries = [entry.kind for _, entry in site.host.store.answers()]
    assert entries == ["comparison", "undo"]


def test_other_sites_and_forms_change_nothing(site: Site) -> None:
    anna = Client(site, "anna")
    (question,) = anna.next()
    for headers in (
        {"x_prefrl": ""},
        {"x_prefrl": "0" * 64},
        {"x_prefrl": Client(site, "ben").csrf},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"content_type": "text/plain"},
        {"content_type": "application/x-www-form-urlencoded"},
    ):
        status, _, _ = anna.post("answer", {"ticket": question["ticket"], "order": [[0], [1]]}, **headers)
        assert status in (401, 403, 415), headers
    assert Client(site).post("enter", {"token": anna.token}, sec_fetch_site="cross-site")[0] == 403
    assert anna.request("OPTIONS", "answer", origin="https://evil.example")[0] == 405
    assert answers(site) == 0


@pytest.mark.parametrize(
    "path",
    [
        "static/../host.py", "static/%2e%2e/host.py", "static/..%2f..%2fdesk.py", "static//etc/passwd",
        "../../etc/passwd", "static/app.py", "clips/../../record.sqlite", "clips/%00", "film/../record.sqlite",
        "record.sqlite", "templates/page.html",
    ],
)  # fmt: skip
def test_no_other_file_is_read(site: Site, path: str) -> None:
    status, _, content = Client(site, "anna").get(path)
    assert status == 404 and b"SQLite" not in content and b"root:" not in content


@pytest.mark.parametrize(
    "said",
    [
        {"order": []}, {"order": [[0], [0]]}, {"order": [[0], [2]]}, {"order": [[], [0, 1]]}, {"order": "01"},
        {"order": {"0": 1}}, {"order": [[0.5], [1]]}, {"order": [[True], [False]]}, {"seconds": -1}, {"seconds": "2"},
        {"seconds": 1e300}, {"ago": -1}, {"seen": 2}, {"comment": 5}, {"comment": "x" * 2001}, {"ticket": None},
        {"ticket": ["a"]}, {"ticket": ""},
    ],
)  # fmt: skip
def test_what_is_no_answer_to_the_question_is_refused(site: Site, said: dict[str, Any]) -> None:
    anna = Client(site, "anna")
    (question,) = anna.next()
    status, _, content = anna.answer(question, **said)
    assert status in (403, 422) and json.loads(content)["error"]
    assert answers(site) == 0


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"[" * 5000, b"\xff\xfe", b'{"want": NaN'])
def test_what_is_no_json_object_is_refused(site: Site, body: bytes) -> None:
    anna = Client(site, "anna")
    assert anna.request("POST", "next", body, content_type="application/json", x_prefrl=anna.csrf)[0] == 400


def test_large_bodies_and_long_lists_are_refused_or_cut(site: Site) -> None:
    anna, stranger = Client(site, "anna"), Client(site)
    large = json.dumps({"token": "x" * 70_000}).encode()
    assert stranger.request("POST", "enter", large, content_type="application/json")[0] == 413
    assert anna.request("POST", "answer", large, content_type="application/json", x_prefrl=anna.csrf)[0] == 413
    assert len(anna.next(want=10_000)) <= 5
    assert anna.post("next", {"held": "x"})[0] == 422


def test_a_flood_is_turned_away_while_others_go_on(site: Site) -> None:
    anna = Client(site, "anna")
    (question,) = anna.next()
    found: list[int] = []

    def flood() -> None:
        stranger = Client(site)
        for _ in range(150):
            found.append(stranger.post("enter", {"token": "x"})[0])
            found.append(stranger.get("progress")[0])

    threads = [threading.Thread(target=flood) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    ben = Client(site, "ben")  # comes in all the same
    assert anna.answer(question)[0] == 200
    assert ben.answer(ben.next()[0])[0] == 200
    for thread in threads:
        thread.join()
    assert set(found) == {401, 429} and found.count(429) > len(found) / 2


def test_one_persons_flood_is_theirs_alone() -> None:
    clock = [0.0]
    bucket = Bucket(20, 100, lambda: clock[0])
    assert [bucket.take() for _ in range(101)] == [True] * 100 + [False]
    clock[0] += 0.1
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    clock[0] += 1e6
    assert sum(bucket.take() for _ in range(1000)) == 100


def test_tokens_are_kept_as_hashes_and_no_addresses_at_all(site: Site, tmp_path: Path) -> None:
    anna = Client(site, "anna")
    anna.answer(anna.next()[0])
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("record.sqlite*"))
    assert anna.token.encode() not in kept and b"127.0.0.1" not in kept


def test_the_owner_sees_how_everybody_answers(site: Site) -> None:
    anna, owner = Client(site, "anna"), Client(site)
    anna.answer(anna.next()[0], seconds=0.1)
    owner.enter(site.host.store.links.make("boss", "owner"))
    status, _, content = owner.get("people")
    people = {one["name"]: one for one in json.loads(content)["people"]}
    assert status == 200 and people["anna"]["num_answers"] == 1 and people["anna"]["too_fast"]["share"] == 1.0
    assert people["boss"]["links"] == 1


@pytest.mark.parametrize("late", [False, True])
def test_a_page_that_was_closed_keeps_nothing_whatever_was_on_its_way_to_it(late: bool, site: Site) -> None:
    anna = Client(site, "anna")

    def ask(page: object, held: list[str]) -> list[str]:
        found = json.loads(anna.post("next", {"want": 4, "page": page, "held": held})[2])
        return [question["ticket"] for question in found["questions"]]

    held = ask("first", [])
    assert len(held) == 4
    if late:  # its last request comes after its farewell
        assert anna.post("release", {"held": held, "page": "first"})[0] == 200
        assert ask("first", held) == []
    else:  # what was brought last never reached it
        assert len(ask("first", held[:2])) == 1  # of five that it may hold with those two, the last one left
        said = json.loads(anna.post("release", {"held": held, "page": "first"})[2])
        assert said == {"released": 5}
    assert len(ask("second", [])) == 4
    assert len(ask(["second"], [])) == 1, "a page without a name is as one of before"


# ---------------------------------------------------------------------------------------------------- campaigns

OWNERS_PAGES = ("dashboard", "people", "disagreements", "remarks")
EVERY_PAGE = (
    *("gallery", "answers", "examples", "progress", "film", "films/100", "clips/x", *OWNERS_PAGES),
    *(f"static/{name}" for name in ("app.js", "campaign.js", "dashboard.js", "text.js", "style.css", "campaign.css")),
    *(
        "next",
        "answer",
        "undo",
        "release",
        "leave",
        "again",
        "reopen",
        "consent",
        "withdraw",
        "edit",
        "adjudicate",
        "pin",
    ),
    *(".env", ".git/config", "record.sqlite", "admin", "metrics", "openapi.json", "docs", "robots.txt", "favicon.ico"),
)
PLATFORM = {"PROLIFIC_PID": "5f00aa", "STUDY_ID": "study1", "SESSION_ID": "session1"}


@pytest.fixture
def campaign(tmp_path: Path) -> Iterator[Site]:
    with PreferenceStore(tmp_path / "campaign.sqlite") as store:
        fill(store, [(0, 1), (2, 3), (4, 5), (6, 0), (1, 2)])
    with serving(tmp_path / "campaign.sqlite", consent="You may stop.", limit=2, completion_code="C0DE77") as opened:
        yield opened


def test_a_scan_of_every_page_tells_a_stranger_nothing_but_how_to_sign_in(campaign: Site) -> None:
    anna, stranger = Client(campaign, "anna"), Client(campaign)
    assert anna.post("consent", {"version": campaign.host.gate.consent()["version"]})[0] == 200
    assert anna.answer(anna.next()[0], comment="a secret note")[0] == 200
    sign_in = stranger.get("")[2]
    for path in EVERY_PAGE:
        for status, _, content in (stranger.get(path), stranger.post(path, {"want": 1, "row": 1})):
            assert status in (401, 405, 429), path
            told = content.decode()
            assert len(told) < 200 or told.partition("nonce")[0] == sign_in.decode().partition("nonce")[0], path
            for secret in ("a run", "anna", "secret", "C0DE77", "You may stop", "static/", "csrf"):
                assert secret not in told, path
        if path.endswith("0"):
            time.sleep(0.1)  # no more at once than strangers may


@pytest.mark.parametrize(
    "given",
    [{}, {"PROLIFIC_PID": "x"}, {**PLATFORM, "PROLIFIC_PID": "{{%PROLIFIC_PID%}}"}, {**PLATFORM, "SESSION_ID": 5},
     {**PLATFORM, "STUDY_ID": "a" * 65}, {**PLATFORM, "PROLIFIC_PID": "' OR 1=1 --"},
     {**PLATFORM, "SESSION_ID": "\ud800"}],
)  # fmt: skip
def test_a_studys_link_lets_nobody_in_whom_no_platform_sent(campaign: Site, given: dict[str, Any]) -> None:
    token = campaign.host.store.links.make("pilot", "study")
    status, headers, _ = Client(campaign).post("enter", {"token": token, **given})
    assert status == 401 and "set-cookie" not in headers
    assert campaign.host.store.participants.all() == []


def test_a_participant_is_nobody_else_and_nobody_else_is_they(campaign: Site) -> None:
    token = campaign.host.store.links.make("pilot", "study")
    first, other = Client(campaign), Client(campaign)
    status, headers, _ = first.post("enter", {"token": token, **PLATFORM, "name": "anna", "role": "owner"})
    assert status == 200
    first.cookie = headers["set-cookie"].partition(";")[0]
    assert other.post("enter", {"token": token, **PLATFORM, "SESSION_ID": "guessed"})[0] == 401
    person = campaign.host.who(first.cookie.partition("=")[2])
    assert person is not None and (person.name, person.role) == ("prolific-5f00aa", "annotator")
    for path in OWNERS_PAGES:
        assert first.get(path)[0] == 403, path
    campaign.host.store.links.revoke("pilot")
    assert first.get("progress")[0] == 401


def test_nothing_is_asked_or_taken_before_consent_to_what_stands_there_now(campaign: Site) -> None:
    anna = Client(campaign, "anna")
    found = json.loads(anna.post("next", {"want": 3})[2])
    assert (found["stage"], found["questions"]) == ("consent", [])
    for version in ("", None, "0" * 12, ["a"], True):
        assert anna.post("consent", {"version": version})[0] == 409
    person = campaign.host.who(anna.cookie.partition("=")[2])
    (claim,) = campaign.host.store.claim("anna", 1)
    ticket = campaign.host.signed_ticket(person, claim.token, claim.query.id, claim.shown)
    assert anna.answer({"ticket": ticket})[0] == 403
    assert answers(campaign) == 0 and campaign.host.store.participants.consents() == {}


def test_the_completion_code_is_told_to_who_is_done_and_to_nobody_before(campaign: Site) -> None:
    anna = Client(campaign, "anna")
    seen = anna.get("")[2]
    anna.post("consent", {"version": found_version(anna)})
    for _ in range(2):
        said = anna.post("next", {"want": 5})[2]
        seen += said
        seen += anna.answer(json.loads(said)["questions"][0])[2]
    assert b"C0DE77" not in seen
    done = json.loads(anna.post("next", {"want": 5})[2])
    assert (done["stage"], done["questions"], done["completion"]["code"]) == ("done", [], "C0DE77")


def found_version(client: Client) -> str:
    return str(json.loads(client.post("next", {"want": 1})[2])["consent"]["version"])


def test_only_the_owner_settles_and_pins_and_only_with_tickets_of_their_own(site: Site) -> None:
    anna, owner = Client(site, "anna"), Client(site)
    owner.enter(site.host.store.links.make("boss", "owner"))
    (question,) = anna.next()
    assert anna.answer(question)[0] == 200
    for path in OWNERS_PAGES:
        assert anna.get(path)[0] == 403, path
    said = {"ticket": question["ticket"], "row": 1, "item": 0, "good": True}
    for path in ("adjudicate", "pin"):
        assert anna.post(path, said)[0] == 403, path
        assert owner.post(path, said)[0] == 403, "a ticket of somebody else's"
        assert owner.post(path, said, x_prefrl=anna.csrf)[0] == 401
        assert owner.post(path, said, sec_fetch_site="cross-site")[0] == 403
    assert answers(site) == 1 and "examples" not in site.host.store.facts()


def test_nobody_withdraws_or_edits_for_another_or_from_another_site(site: Site) -> None:
    anna, ben = Client(site, "anna"), Client(site, "ben")
    (question,) = anna.next()
    assert anna.answer(question)[0] == 200
    for headers in ({"x_prefrl": ""}, {"x_prefrl": ben.csrf}, {"sec_fetch_site": "cross-site"}):
        assert anna.post("withdraw", {}, **headers)[0] in (401, 403)
    assert ben.post("edit", {"ticket": question["ticket"], "place": 0, "text": "x"})[0] == 403
    assert anna.post("edit", {"ticket": question["ticket"], "place": 0, "text": "x"})[0] == 409, "a clip is no text"
    assert anna.post("edit", {"ticket": question["ticket"], "place": 0, "text": "x" * 20_001})[0] == 422
    assert answers(site) == 1
    assert anna.post("withdraw", {})[0] == 200
    assert anna.get("progress")[0] == 401 and Client(site).post("enter", {"token": anna.token})[0] == 401
    assert ben.post("next", {"want": 1})[0] == 200


def test_two_hundred_requests_a_second_for_seconds_leave_those_who_answer_alone(site: Site) -> None:
    anna = Client(site, "anna")
    stop, found = threading.Event(), list[int]()

    def flood() -> None:
        stranger, began = Client(site), time.monotonic()
        for number in range(10**6):
            if stop.is_set():
                return
            time.sleep(max(0.0, began + number / 50 - time.monotonic()))  # four of these: 200 a second, where it can
            found.append(stranger.get(("", "progress", "people", "clips/x")[number % 4])[0])

    threads = [threading.Thread(target=flood) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(2.5)
        for _ in range(3):
            (question,) = anna.next()
            assert anna.answer(question)[0] == 200
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert answers(site) == 3 and set(found) <= {401, 429}


def test_nothing_that_a_page_asks_meanwhile_outlives_a_withdrawal(site: Site) -> None:
    for number in range(5):
        name = f"anna{number}"
        anna, over = Client(site, name), threading.Event()
        (question,) = anna.next()

        def insist(client: Client = anna, asked: dict[str, Any] = question, over: threading.Event = over) -> None:
            while not over.is_set():
                client.post("next", {"want": 1})
                client.answer(asked)

        threads = [threading.Thread(target=insist, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        while (found := anna.post("withdraw", {}))[0] == 429:
            time.sleep(0.1)
        assert found[0] == 200
        time.sleep(0.1)
        over.set()
        for thread in threads:
            thread.join(20)
        assert name not in site.host.store.annotators()
        assert name not in {entry.annotator for _, entry in site.host.store.answers()}
