"""Nobody looks without a token, nobody commands with the viewer's, no other page gets through."""

import pytest

from .bench import TOKENS, Run


def test_without_a_token_there_is_only_the_sign_in(run: Run):
    for path in ("/", "/api/facts", "/anything"):
        answer = run.fetch(path)
        assert answer.status == 401
        assert b"token" in answer.body
    assert run.fetch("/static/style.css").status == 200


def test_a_wrong_token_opens_nothing(run: Run):
    answer = run.fetch("/?token=wrong")
    assert answer.status == 401
    assert b"That token opens nothing here" in answer.body
    assert "set-cookie" not in answer.headers


def test_a_token_is_traded_for_a_cookie_that_scripts_and_other_sites_cannot_use(run: Run):
    answer = run.fetch(f"/?token={TOKENS.operator}")
    assert answer.status == 303
    assert answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert TOKENS.operator not in cookie
    assert run.fetch("/", Cookie=cookie.partition(";")[0]).status == 200


def test_who_is_led_here_by_another_site_is_asked_to_come_from_here(run: Run):
    """With what that site causes no cookie comes along, nor with a redirect after it."""
    cookie = run.cookie(TOKENS.operator)
    led = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
    for path in (f"/?token={TOKENS.operator}", "/sessions"):
        answer = run.fetch(path, **led)
        assert answer.status == 200
        assert b"again.js" in answer.body
        assert "set-cookie" not in answer.headers
        answer = run.fetch(path, Cookie=cookie, **{**led, "Sec-Fetch-Site": "same-origin"})
        assert answer.status in (200, 303)
        assert b"again.js" not in answer.body


def test_the_sign_in_form_takes_the_token_too(run: Run):
    form = f"token={TOKENS.viewer}".encode()
    answer = run.fetch("/login", "POST", form, Origin=run.origin)
    assert answer.status == 303
    assert run.fetch("/login", "POST", form, Origin="http://evil.example").status == 403


def test_a_cookie_of_another_run_opens_nothing(run: Run):
    assert run.fetch("/", Cookie=f"semagent-{run.port}={'0' * 64}").status == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1:1", ""])
def test_a_name_that_was_made_to_point_here_gets_no_answer(run: Run, host: str):
    cookie = run.cookie(TOKENS.operator)
    answer = run.fetch("/", Host=host.format(port=run.port), Cookie=cookie)
    assert answer.status in (400, 421)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]"])
def test_every_name_of_this_machine_is_answered(run: Run, name: str):
    cookie = run.cookie(TOKENS.operator)
    assert run.fetch("/", Host=f"{name}:{run.port}", Cookie=cookie).status == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_another_page_cannot_command(run: Run, origin: str):
    assert run.wish({"type": "arm"}, Origin=origin).status == 403
    assert run.commands == []


def test_a_command_without_an_origin_is_refused(run: Run):
    cookie = run.cookie(TOKENS.operator)
    body = b'{"type": "arm"}'
    answer = run.fetch("/api/wish", "POST", body, Cookie=cookie, Content_Type="application/json")
    assert answer.status == 403


def test_a_form_of_another_page_cannot_be_taken_for_a_wish(run: Run):
    assert run.wish({"type": "arm"}, Content_Type="text/plain").status == 415
    assert run.commands == []


def test_a_script_may_use_the_token_itself(run: Run):
    given = {"Authorization": f"Bearer {TOKENS.operator}", "Content_Type": "application/json"}
    assert run.fetch("/api/wish", "POST", b'{"type": "arm"}', **given).status == 200
    assert run.fetch("/api/facts", Authorization="Bearer wrong").status == 401


def test_every_answer_forbids_framing_and_foreign_scripts(run: Run):
    for path in ("/", "/static/style.css"):
        policy = run.fetch(path).headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'self'" in policy


def test_the_viewer_may_look_and_not_touch(run: Run):
    cookie = run.cookie(TOKENS.viewer)
    assert run.fetch("/", Cookie=cookie).status == 200
    assert run.fetch("/api/facts", Cookie=cookie).status == 200
    for wish in ({"type": "arm"}, {"type": "stop"}, {"type": "note", "text": "hello"}):
        assert run.wish(wish, token=TOKENS.viewer).status == 403
    assert run.commands == []
    assert run.requests == []
