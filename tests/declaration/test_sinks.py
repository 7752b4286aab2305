"""URLs of webhooks and addresses of mail."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.declaration.sinks import email, webhook
from agent.errors import UsageError


@pytest.mark.parametrize(
    "text",
    [
        "https://hooks.example.org",
        "https://hooks.example.org:8443/a/b?c=d&e",
        "https://hooks.example.org?x",
        "https://[fd00::1]:9/x",
        "http://127.0.0.1:8000/x",
        "http://10.1.2.3/",
        "http://[::1]/",
        "http://localhost/",
    ],
)
def test_a_url_that_can_be_posted_to_is_taken_as_it_is(text: str) -> None:
    assert webhook(text) == text


HINT = 'write one such as "https://hooks.example.org/agent"'
PLAIN = "would go out unencrypted; write https (http is for private addresses alone)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hooks.example.org", f"is not a URL that can be posted to; {HINT}"),
        ("ftp://a/b", f"is not a URL that can be posted to; {HINT}"),
        ("https://a/b c", f"is not a URL that can be posted to; {HINT}"),
        ('https://a/"x', f"is not a URL that can be posted to; {HINT}"),
        ("https://a/#x", f"is not a URL that can be posted to; {HINT}"),
        ("https://a/\n", f"is not a URL that can be posted to; {HINT}"),
        ("https://ann:pw@a/", f"a URL holds no user and no password here; {HINT}"),
        ("https://a:0/", "names no port; ports go from 1 to 65535"),
        ("https://a:65536/", "names no port; ports go from 1 to 65535"),
        ("https://[::g]/", f"is not a URL that can be posted to; {HINT}"),
        ("https://[1.2]/", f"has no IPv6 address in its brackets; {HINT}"),
        ("http://hooks.example.org/", PLAIN),
        ("http://8.8.8.8/", PLAIN),
        ("http://hooks.example.org/T0/t0ken", PLAIN),
        ("https://ann:p/w@a/", f"is not a URL that can be posted to; {HINT}"),
        ("http://169.254.169.254/", PLAIN),
    ],
)
def test_what_cannot_be_posted_to_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        webhook(text)
    assert str(error.value) == message


REASONS = {
    f"a URL holds no user and no password here; {HINT}",
    f"is not a URL that can be posted to; {HINT}",
    "names no port; ports go from 1 to 65535",
    f"has no IPv6 address in its brackets; {HINT}",
    PLAIN,
}


@pytest.mark.parametrize("text", ["root", "ops@example.org", "a.b+c@x-y.example.org", "o'neil@localhost", "x@h_1.y"])
def test_an_address_of_mail_is_taken_as_it_is(text: str) -> None:
    assert email(text) == text


@pytest.mark.parametrize(
    "text",
    ["-oQ/tmp", "a b@c", "a@b,c@d", "a@b\nBcc: x@y", '"a"@b', "a@", "@b", "a@b@c", "a..b@c", "ä@b", "x" * 65 + "@b"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not an address of mail; write one such as"):
        email(text)


@given(st.text(max_size=60) | st.text(alphabet="htps:/.[]@a1-", max_size=30).map("https://{}".format))
def test_any_text_is_a_url_of_plain_characters_or_is_refused_and_not_quoted(text: str) -> None:
    try:
        webhook(text)
    except UsageError as error:
        assert str(error) in REASONS
    else:
        assert text.isascii()
        assert text.isprintable()
        assert not set(text) & set(" \"'\\<>^`{|}#")
