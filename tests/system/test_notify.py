"""Who is told, from within the sandbox of the unit: by the host's curl, its mail system, and a program."""

from __future__ import annotations

import email.message
import email.policy
import json
from functools import partial

import pytest

from tests.harness import wait_until
from tests.system.host import Host

RECEIVER = """
import http.server, pathlib
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        pathlib.Path("/opt/hooked.new").write_bytes(body)
        pathlib.Path("/opt/hooked.new").rename("/opt/hooked")
        self.send_response(204)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", 8912), Handler).serve_forever()
"""

DECLARED = """
[service.api]
kind = "command"
command = ["/bin/false"]
restart = "no"

[notify.hook]
webhook = "http://127.0.0.1:8912/"
kinds = ["failed"]
group = "100ms"

[notify.page]
command = ["/bin/sh", "-c", "cat > /srv/spool/watch/page"]
kinds = ["failed"]
group = "100ms"
"""


def test_a_webhook_and_a_program_are_told_from_within_the_sandbox(installed: Host) -> None:
    installed.lay_program("/usr/bin/curl")
    installed.run(["systemd-run", "--unit=receiver", "/usr/bin/python3", "-c", RECEIVER])
    installed.declare(DECLARED)
    installed.systemctl("start")
    for file in ("/opt/hooked", "/srv/spool/watch/page"):
        wait_until(partial(there, installed, file))
        (event,) = json.loads(installed.run(["cat", file]).stdout)["events"]
        assert (event["service"], event["kind"]) == ("api", "failed")


MAILED = """
[service.api]
kind = "command"
command = ["/bin/false"]
restart = "no"

[notify.mail]
email = "ops@example.org"
kinds = ["failed"]
group = "100ms"
"""


def run_mail_system(host: Host, port: int) -> None:
    """msmtpd(1), which appends each mail to ``/opt/mail``, behind who is to have it."""
    host.lay_program("/usr/bin/msmtpd")
    host.write("/opt/keep", '#!/bin/sh\n{ echo "$@"; cat; } >/opt/mail.new && mv /opt/mail.new /opt/mail\n', 0o755)
    keep = ["/usr/bin/msmtpd", "--interface=127.0.0.1", f"--port={port}", "--command=/opt/keep %F --"]
    host.run(["systemd-run", "--unit=mail", *keep])
    wait_until(lambda: bool(host.run(["ss", "-Hltn", f"sport = {port}"]).stdout))


@pytest.mark.parametrize("way", ["port 25", "sendmail"])
def test_a_mail_goes_out_from_within_the_sandbox(installed: Host, way: str) -> None:
    """As large mail systems take it, and through ``sendmail`` of msmtp where nobody listens on port 25."""
    run_mail_system(installed, 25 if way == "port 25" else 2525)
    if way == "sendmail":
        installed.lay_program("/usr/sbin/sendmail")
        installed.write("/etc/msmtprc", "account default\nhost 127.0.0.1\nport 2525\n", 0o644)
    installed.write("/etc/mailname", "example.net\n")
    installed.declare(MAILED)
    installed.systemctl("start")
    wait_until(partial(there, installed, "/opt/mail"), lambda: installed.log("watch"))
    envelope, _, content = installed.path("/opt/mail").read_text().partition("\n")
    assert envelope.split() == ["agent@example.net", "--", "ops@example.org"]
    mail = email.message_from_string(content, policy=email.policy.default)
    assert isinstance(mail, email.message.EmailMessage)
    assert "api failed: exited 1" in mail["Subject"]
    assert "api failed: exited 1" in mail.get_content()
    delivered = {"notifications_delivered": 1, "notifications_failing": 0}
    wait_until(lambda: delivered.items() <= installed.service("watch")["figures"].items())


def there(host: Host, file: str) -> bool:
    """Whether a file in the machine holds something."""
    return host.run(["test", "-s", file], check=False).returncode == 0
