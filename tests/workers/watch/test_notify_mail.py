"""Mail, by a real mail system: msmtpd takes it, and msmtp is the sendmail of this host."""

from __future__ import annotations

import asyncio
import email
import email.policy
import os
from collections.abc import Mapping
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.linux.environment import base_environment
from agent.telemetry.events import Event
from agent.workers.watch import notify_mail
from agent.workers.watch.notify_mail import header_text, mail, mail_name, send
from agent.workers.watch.notify_message import compose, cut
from agent.workers.watch.notify_program import Outcome
from tests.workers.watch.sinks import free_port, mail_system


def message(text: str = "silent for 30 s") -> dict[str, Any]:
    events = [Event(number, 1.0, "api", "hung", f"{text} {number}", {}) for number in range(60)]
    return compose("hel1", "ops", events, 0, 1_795_000_000.0)


def read(content: bytes) -> EmailMessage:
    found = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    return found


def test_a_mail_can_be_read_by_what_reads_mail() -> None:
    found = read(mail("ops@example.org", message("Ünï"), "hel1.example.org"))
    assert found["From"] == "agent <agent@hel1.example.org>"
    assert found["To"] == "ops@example.org"
    assert found["Subject"] == "[warning] hel1: 60 events, warning at worst: 60 × api hung"
    assert found["Date"].datetime.timestamp() == 1_795_000_000
    text = found.get_content()
    assert "warning api hung: Ünï 0\n" in text
    assert "and 10 more: agentctl events\n" in text
    assert not found.defects


@given(st.text(max_size=400))
def test_no_text_of_strangers_becomes_a_header(text: str) -> None:
    one = compose("hel1", "ops", [Event(1, 1.0, "api", "hung", text, {})], 0, 1.0)
    content = mail("root", one, "hel1")
    head, _, _rest = content.partition(b"\n\n")
    assert [line.split(b":")[0] for line in head.split(b"\n") if not line.startswith(b" ")] == [
        b"From", b"To", b"Subject", b"Date", b"Message-ID", b"Auto-Submitted", b"MIME-Version",
        b"Content-Type", b"Content-Transfer-Encoding",
    ]  # fmt: skip
    assert max(map(len, content.split(b"\n"))) < 300
    assert read(content)["Subject"].split() == cut(f"[warning] {one['text']}").split()


@given(st.text(max_size=400))
def test_a_header_is_ascii_and_each_of_its_lines_short(text: str) -> None:
    found = header_text(text)
    assert found.isascii()
    assert all(len(line) <= 200 for line in found.split("\n "))


def test_who_listens_on_this_host_is_given_the_mail(tmp_path: Path) -> None:
    with mail_system(tmp_path) as port:
        outcome = asyncio.run(send("ops@example.org", message("a\n.\nb"), base_environment(os.environ), port))
        assert outcome.delivered, outcome.why
        first, _, content = (tmp_path / "mail").read_bytes().partition(b"\n")
    assert first.decode().split()[1:] == ["--", "ops@example.org"]
    assert "a\\n.\\nb 0" in read(content.replace(b"\r\n", b"\n")).get_content()


def test_a_user_of_this_host_is_an_address_of_its_domain_in_smtp() -> None:
    outcome, said = answered({})
    assert outcome.delivered, outcome.why
    assert f"RCPT TO:<root@{mail_name()}>" in said
    assert f"To: root@{mail_name()}" in said


def test_a_user_of_this_host_is_for_sendmail_to_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, program = tmp_path / "seen", tmp_path / "sendmail"
    program.write_text(f'#!/bin/sh\necho "$@" > {seen}\n')
    program.chmod(0o755)
    monkeypatch.setattr(notify_mail, "SENDMAIL", str(program))
    assert asyncio.run(send("root", message(), base_environment(os.environ), free_port())).delivered
    assert seen.read_text().split()[-1] == "root"


def test_where_nobody_listens_sendmail_is_given_it(tmp_path: Path) -> None:
    with mail_system(tmp_path) as port:
        configuration = tmp_path / ".msmtprc"
        configuration.write_text(f"account default\nhost 127.0.0.1\nport {port}\nauto_from on\n")
        configuration.chmod(0o600)
        environment = {**base_environment(os.environ), "HOME": str(tmp_path)}
        outcome = asyncio.run(send("root@example.org", message(), environment, free_port()))
        assert outcome.delivered, outcome.why
        content = (tmp_path / "mail").read_bytes()
    assert b"root@example.org" in content.partition(b"\n")[0]


def test_a_sendmail_that_fails_is_quoted(tmp_path: Path) -> None:
    environment = {**base_environment(os.environ), "HOME": str(tmp_path)}
    outcome = asyncio.run(send("root@example.org", message(), environment, free_port()))
    assert not outcome.delivered
    assert outcome.why.startswith("sendmail exited 78: sendmail: ")


def test_without_a_mail_system_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify_mail, "SENDMAIL", "/nowhere/sendmail")
    outcome = asyncio.run(send("root", message(), base_environment(os.environ), free_port()))
    assert outcome.why.startswith("nobody listens on port 25 of this host, and cannot start /nowhere/sendmail")
    assert outcome.why.endswith("install a mail system")


def answered(replies: Mapping[str, str]) -> tuple[Outcome, list[str]]:
    """What comes of a mail to ``root``, and what was said, for a mail system that has ``replies`` to some commands.

    Its greeting is the reply to nothing, and that to the text of a mail the reply to a dot.
    """
    said: list[str] = []
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        known = {"": "220 here", "DATA": "354 go on", **replies}
        writer.write(f"{known['']}\r\n".encode())
        in_text = False
        while raw := await reader.readline():
            line = raw.decode().rstrip("\r\n")
            word = line.split()[0] if not in_text else line
            said.append(line)
            in_text = in_text or (word == "DATA" and known["DATA"].startswith("354"))
            if not in_text or word in ("DATA", "."):
                writer.write(f"{known.get(word, '250 ok')}\r\n".encode())
            in_text = in_text and word != "."
        writer.close()
        await writer.wait_closed()
        gone.set()

    async def against() -> Outcome:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            outcome = await send("root", message(), {}, server.sockets[0].getsockname()[1])
            await gone.wait()
        return outcome

    return asyncio.run(against()), said


@pytest.mark.parametrize(
    ("replies", "refused"),
    [
        ({"": "554 5.3.2 no SMTP service here"}, False),
        ({"EHLO": "554 not you"}, False),
        ({"MAIL": "552 5.2.2 mailbox full"}, False),
        ({"RCPT": "554 5.7.1 <ops@example.org>: Relay access denied"}, False),
        ({"DATA": "451 later"}, False),
        ({"DATA": "554 no valid recipients"}, True),
        ({".": "452 4.3.1 no room"}, False),
        ({".": "552 5.3.4 too large"}, True),
        ({".": "554 5.7.1 rejected for what it says"}, True),
    ],
)
def test_only_who_has_been_told_what_is_in_it_refuses_a_mail_for_what_it_is(
    replies: dict[str, str], refused: bool
) -> None:
    (reply,) = replies.values()
    assert answered(replies)[0] == Outcome(False, f"the mail system says: {reply}", refused=refused)


def test_what_speaks_no_smtp_is_told_in_one_line() -> None:
    async def against(said: bytes) -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(said)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            outcome = await send("root", message(), {}, server.sockets[0].getsockname()[1])
        assert not outcome.delivered
        assert outcome.why.isprintable()
        return outcome.why

    assert asyncio.run(against(b"554 go away\x1b[2J\r\n")) == "the mail system says: 554 go away\\x1b[2J"
    assert asyncio.run(against(b"")) == "the mail system says: nothing"
    assert "on port" in asyncio.run(against(b"x" * 10_000))
    assert "more than 100 lines" in asyncio.run(against(b"220-\r\n" * 1000))
