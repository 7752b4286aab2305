"""Who is told, from within the sandbox of the unit: the host's curl, and a program."""

from __future__ import annotations

import json
import re
import subprocess
from functools import partial
from pathlib import Path

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


def lay_curl(host: Host) -> None:
    """This machine's own curl, with what it loads: it is the same Debian."""
    loaded = subprocess.run(["ldd", "/usr/bin/curl"], capture_output=True, text=True, check=True).stdout
    for file in ["/usr/bin/curl", *re.findall(r"=> (/\S+)", loaded)]:
        if host.run(["test", "-e", file], check=False).returncode:
            host.copy_in(Path(file).resolve(), file)


def test_a_webhook_and_a_program_are_told_from_within_the_sandbox(installed: Host) -> None:
    lay_curl(installed)
    installed.run(["systemd-run", "--unit=receiver", "/usr/bin/python3", "-c", RECEIVER])
    installed.declare(DECLARED)
    installed.systemctl("start")
    for file in ("/opt/hooked", "/srv/spool/watch/page"):
        wait_until(partial(there, installed, file))
        (event,) = json.loads(installed.run(["cat", file]).stdout)["events"]
        assert (event["service"], event["kind"]) == ("api", "failed")


def there(host: Host, file: str) -> bool:
    """Whether a file in the machine holds something."""
    return host.run(["test", "-s", file], check=False).returncode == 0
