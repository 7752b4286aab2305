"""Secrets and the declaration as credentials of systemd: who can read them, where they never turn up, and how long they
are what they were."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from tests.binary import built
from tests.harness import wait_until
from tests.system.host import SOURCE, UNIT, Host

NEXT = "0.1.1"
SECRET = "correct horse battery staple"
GIVEN = "/run/credentials/agent.service"
AS_GIVEN = {"CREDENTIALS_DIRECTORY": GIVEN}
"""With this, a command of root's sees what the agent has been given."""

# Tells what it was given, in places that only its own user can read, and lives on.
READS = """
import os, pathlib, signal
data = pathlib.Path(os.environ["SERVICE_DATA"])
(data / "path").write_text(os.environ["DB_PASSWORD_FILE"])
(data / "names").write_text("\\\\n".join(os.environ))
(data / "length").write_text(str(len(pathlib.Path(os.environ["DB_PASSWORD_FILE"]).read_text())))
signal.pause()
"""


def reads(host: Host, *more: str) -> str:
    """The declaration of a service that reads its secret."""
    program = host.program("reads", READS)
    lines = ("[service.db]", 'kind = "command"', f'command = ["{program}"]', 'secrets = ["db_password"]', *more)
    return "\n".join(lines) + "\n"


def give(host: Host, *lines: str) -> None:
    host.drop_in("credentials", "\n".join(("[Service]", *lines, "")))


def keep_secret(host: Host, name: str = "db_password") -> str:
    """Put the secret where only root can read it; returns the path."""
    file = f"/etc/credstore/{name}"
    host.write(file, SECRET, 0o600)
    host.path("/etc/credstore").chmod(0o700)
    return file


def encrypt(host: Host, text: str, name: str) -> str:
    """The same, encrypted with the key of the machine; returns the path."""
    file = f"/etc/credstore.encrypted/{name}"
    host.path("/etc/credstore.encrypted").mkdir(mode=0o700, exist_ok=True)
    host.run(["systemd-creds", "encrypt", "--with-key=host", f"--name={name}", "-", file], stdin=text)
    assert text not in host.path(file).read_text()
    return file


def root_only(host: Host, text: str) -> None:
    """Declare something that only root can read."""
    host.declare(text)
    host.path("/srv/key/env.toml").chmod(0o600)


def told(host: Host, name: str) -> str:
    """What the service found out: see READS."""
    file = host.path(f"/srv/spool/db/{name}")
    wait_until(lambda: file.exists() and file.read_text() != "")
    return file.read_text()


def assert_kept(host: Host) -> None:
    """The secret is in no environment, command line, log, file of ours, journal or answer."""
    looked_at = 0
    for pid in host.processes():
        for name in ("environ", "cmdline"):
            assert SECRET.encode() not in Path(f"/proc/{pid}/{name}").read_bytes(), f"{pid}: {name}"
            looked_at += 1
    for file in host.path("/srv").rglob("*"):
        if file.is_file() and not file.is_symlink() and "secrets" not in str(file):
            assert SECRET.encode() not in file.read_bytes(), file
            looked_at += 1
    assert looked_at > 20
    said = [host.journal("--output=export")]
    for words in (("status", "--json"), ("events", "--json"), ("config", "show"), ("logs", "db")):
        said.append(host.agentctl(*words, environment=AS_GIVEN).stdout)
    assert all(said[:3])
    for text in said:
        assert SECRET not in text


def declaration(host: Host) -> str:
    """The file that is in effect, as the status has it."""
    found: str = host.status()["agent"]["declaration"]
    return found


@pytest.mark.parametrize("encrypted", [False, True], ids=["LoadCredential", "LoadCredentialEncrypted"])
def test_a_secret_that_systemd_hands_over_is_read_by_the_worker_and_by_nobody_else(
    installed: Host, encrypted: bool
) -> None:
    file = encrypt(installed, SECRET, "db_password") if encrypted else keep_secret(installed)
    give(installed, f"{'LoadCredentialEncrypted' if encrypted else 'LoadCredential'}=db_password:{file}")
    installed.declare(reads(installed))
    installed.systemctl("start")
    assert told(installed, "path") == f"{GIVEN}/db_password"
    assert told(installed, "length") == str(len(SECRET))
    assert "CREDENTIALS_DIRECTORY" not in told(installed, "names")
    for path in (f"{GIVEN}/db_password", file):
        refused = installed.run(["cat", path], user="nobody", check=False)
        assert refused.returncode == 1
        assert "Permission denied" in refused.stderr
    assert_kept(installed)
    assert not list(installed.path("/srv/run").glob("*.secrets"))
    installed.systemctl("stop")
    assert not installed.path(GIVEN).exists()


def test_a_credential_goes_before_a_file_of_that_name_and_a_file_will_do(installed: Host) -> None:
    installed.declare(reads(installed))
    installed.write("/srv/key/secrets/db_password", "short", 0o600)
    installed.run(["chown", "-R", "agent:agent", "/srv/key/secrets"])
    installed.systemctl("start")
    assert (told(installed, "path"), told(installed, "length")) == ("/srv/key/secrets/db_password", "5")
    installed.systemctl("stop")
    give(installed, f"LoadCredential=db_password:{keep_secret(installed)}")
    installed.path("/srv/spool/db/path").unlink()
    installed.systemctl("start")
    assert told(installed, "path") == f"{GIVEN}/db_password"


def test_a_service_with_a_user_of_its_own_gets_a_copy_that_goes_with_it(installed: Host) -> None:
    installed.drop_in("privileged", (SOURCE / "systemd/privileged.conf").read_text())
    give(installed, f"LoadCredential=db_password:{keep_secret(installed)}")
    installed.declare(reads(installed, 'user = "nobody"'))
    installed.systemctl("start")
    assert told(installed, "path") == "/srv/run/db.secrets/db_password"
    assert told(installed, "length") == str(len(SECRET))
    copy = installed.path("/srv/run/db.secrets/db_password").stat()
    assert (copy.st_uid, copy.st_mode & 0o7777) == (65534, 0o400)
    refused = installed.run(["cat", "/srv/run/db.secrets/db_password"], user="agent", check=False)
    assert "Permission denied" in refused.stderr
    assert_kept(installed)
    installed.agentctl("stop", "db")
    assert not installed.path("/srv/run/db.secrets").exists()


def test_a_secret_that_is_nowhere_is_told_with_both_places(installed: Host) -> None:
    installed.declare(reads(installed))
    assert installed.systemctl("start", check=False).returncode == 1
    said = installed.journal("-u", UNIT, "--priority=err")
    assert "/srv/key/secrets/db_password does not exist, nor is there a credential db_password" in said
    assert installed.show(UNIT, "ExecMainStatus", "NRestarts") == {"ExecMainStatus": "1", "NRestarts": "0"}


def test_a_declaration_of_roots_alone_is_read_as_a_credential(installed: Host) -> None:
    root_only(installed, reads(installed, f'environment = {{ API_TOKEN = "{SECRET}" }}'))
    file = keep_secret(installed)
    give(installed, "LoadCredential=env.toml:/srv/key/env.toml", f"LoadCredential=db_password:{file}")
    installed.systemctl("start")
    assert declaration(installed) == f"{GIVEN}/env.toml"
    assert installed.service("db")["state"] == "running"
    # Root reads the file; what it would find of secrets there is what the agent has been given.
    assert (
        installed.agentctl("validate", environment=AS_GIVEN).stdout
        == "/srv/key/env.toml: valid: 1 service: 1 command\n"
    )
    shown = installed.agentctl("config", "show", environment=AS_GIVEN).stdout
    assert shown.startswith("# Effective declaration of /srv/key/env.toml\n")
    assert 'API_TOKEN = "****"' in shown
    doctor = json.loads(installed.agentctl("doctor", "--json", check=False).stdout)
    (check,) = [check for check in doctor["checks"] if check["name"] == "declaration"]
    assert (check["verdict"], check["finding"]) == ("ok", "/srv/key/env.toml: 1 service")


def test_a_reload_never_applies_a_credential_that_is_out_of_date(installed: Host) -> None:
    root_only(installed, '[service.web]\nkind = "command"\ncommand = ["/bin/sleep", "1111"]\n')
    give(installed, "LoadCredential=env.toml:/srv/key/env.toml")
    installed.systemctl("start")
    before, pid = installed.pid, installed.service("web")["pid"]
    root_only(installed, '[service.web]\nkind = "command"\ncommand = ["/bin/sleep", "2222"]\n')
    why = (
        f"the declaration is a credential ({GIVEN}/env.toml), which systemd renews at a restart only: "
        "systemctl restart agent"
    )
    by_hand = installed.agentctl("reload", check=False)
    assert (by_hand.returncode, by_hand.stderr) == (2, f"agentctl: {why}\n")
    assert installed.systemctl("reload", check=False).returncode == 1
    assert why in installed.journal("-u", UNIT, "--identifier=agentctl", "--identifier=agent", "--priority=err")
    installed.signal(before, signal.SIGHUP)
    wait_until(lambda: [event["kind"] for event in installed.events()].count("reload_refused") == 3)
    assert [event["message"] for event in installed.events() if event["kind"] == "reload_refused"] == [why] * 3
    assert not [event for event in installed.events() if event["kind"] in ("error", "bug")]
    # It is as it was, in every way.
    assert installed.show(UNIT, "ActiveState", "MainPID") == {"ActiveState": "active", "MainPID": str(before)}
    assert (installed.service("web")["pid"], installed.status()["agent"]["state"]) == (pid, "running")
    installed.systemctl("restart")
    assert "sleep 2222" in installed.systemctl("status").stdout


def test_a_reload_that_another_version_follows_never_applies_one_either(installed: Host) -> None:
    sleeps = '[service.web]\nkind = "command"\ncommand = ["/bin/sleep", "{}"]\n'
    root_only(installed, sleeps.format(1111))
    give(installed, "LoadCredential=env.toml:/srv/key/env.toml")
    installed.systemctl("start")
    installed.copy_in(built(NEXT).onefile, "/root/agentctl-next")
    installed.run(["/root/agentctl-next", "install"])
    root_only(installed, sleeps.format(2222))
    assert installed.systemctl("reload", check=False).returncode == 1
    assert "which systemd renews at a restart only" in installed.journal("-u", UNIT, "--priority=err")
    # The other version follows all the same, and who asks for nothing but that is content.
    assert installed.status()["agent"]["version"] == NEXT
    installed.agentctl("upgrade")
    assert "sleep 1111" in installed.systemctl("status").stdout
    # Nor is what is in effect given up for an older credential.
    installed.declare(sleeps.format(3333))
    installed.systemctl("reload")
    installed.path("/srv/key/env.toml").chmod(0o600)
    assert installed.agentctl("upgrade", check=False).returncode == 2
    assert "sleep 3333" in installed.systemctl("status").stdout
    installed.systemctl("restart")
    assert "sleep 3333" in installed.systemctl("status").stdout


def test_a_file_that_may_be_read_again_is_what_a_reload_reads(installed: Host) -> None:
    root_only(installed, '[service.web]\nkind = "command"\ncommand = ["/bin/sleep", "1111"]\n')
    give(installed, "LoadCredential=env.toml:/srv/key/env.toml")
    installed.systemctl("start")
    installed.declare('[service.web]\nkind = "command"\ncommand = ["/bin/sleep", "2222"]\n')
    installed.systemctl("reload")
    assert declaration(installed) == "/srv/key/env.toml"
    assert "sleep 2222" in installed.systemctl("status").stdout
    # And the other way round: the credential is older than what is in effect.
    root_only(installed, '[service.web]\nkind = "command"\ncommand = ["/bin/sleep", "3333"]\n')
    assert installed.systemctl("reload", check=False).returncode == 1
    assert "sleep 2222" in installed.systemctl("status").stdout


def test_a_declaration_that_is_only_a_credential_needs_no_file(installed: Host) -> None:
    text = '[service.web]\nkind = "command"\ncommand = ["/bin/sleep", "1111"]\n'
    give(installed, f"LoadCredentialEncrypted=env.toml:{encrypt(installed, text, 'env.toml')}")
    installed.path("/srv/key/env.toml").unlink(missing_ok=True)
    installed.systemctl("start")
    assert declaration(installed) == f"{GIVEN}/env.toml"
    doctor = json.loads(installed.agentctl("doctor", "--json", check=False).stdout)
    (check,) = [check for check in doctor["checks"] if check["name"] == "declaration"]
    assert (check["verdict"], check["finding"]) == ("ok", f"{GIVEN}/env.toml: 1 service")


def test_mistakes_in_a_credential_are_told_with_its_name(installed: Host) -> None:
    root_only(installed, '[service.web]\nkind = "command"\ncomand = ["/bin/true"]\n')
    give(installed, "LoadCredential=env.toml:/srv/key/env.toml")
    assert installed.systemctl("start", check=False).returncode == 1
    said = installed.journal("-u", UNIT, "--priority=err", "--output=cat")
    assert f"{GIVEN}/env.toml:3: service.web.comand: unknown key; did you mean command?" in said
    assert installed.show(UNIT, "ExecMainStatus", "NRestarts") == {"ExecMainStatus": "1", "NRestarts": "0"}


def test_a_declaration_for_root_alone_without_a_credential_says_what_to_do(installed: Host) -> None:
    root_only(installed, "")
    assert installed.systemctl("start", check=False).returncode == 1
    said = installed.journal("-u", UNIT, "--priority=err", "--output=cat").splitlines()
    assert (
        "/srv/key/env.toml: may not be read by user agent: chmod g+r /srv/key/env.toml; or hand it over: "
        "LoadCredential=env.toml:/srv/key/env.toml"
    ) in said


def test_a_job_that_systemd_runs_has_its_own_credentials(installed: Host) -> None:
    root_only(installed, reads(installed).replace("reads", "once"))
    once = 'import os, pathlib\nassert pathlib.Path(os.environ["DB_PASSWORD_FILE"]).read_text().startswith("correct")\n'
    installed.program("once", once)
    properties = ("User=agent", f"LoadCredential=db_password:{keep_secret(installed)}")
    command = ["/srv/bin/agentctl", "run-once", "db"]
    installed.run_in_unit(command, *properties, "LoadCredential=env.toml:/srv/key/env.toml")
    refused = installed.run_in_unit(command, *properties, check=False)
    assert refused.returncode == 1
    assert "/srv/key/env.toml: may not be read by user agent" in refused.stderr


def test_a_drop_in_of_the_template_gives_a_timers_job_the_secret_and_the_declaration(installed: Host) -> None:
    lines = (f"LoadCredential=db_password:{keep_secret(installed)}", "LoadCredential=env.toml:/srv/key/env.toml")
    installed.drop_in("credentials", "\n".join(("[Service]", *lines, "")), "agent-job@.service")
    declared = reads(installed, 'oncalendar = "yearly"')
    installed.program("reads", READS.replace("signal.pause()", ""))
    root_only(installed, f'[agent]\nscheduler = "systemd"\n{declared}')
    # Nobody knows yet that the job will have it.
    refused = installed.agentctl("timers", "sync", check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "/srv/key/secrets/db_password does not exist, nor is there a credential db_password" in refused.stderr
    known = {"CREDENTIALS_DIRECTORY": "/etc/credstore"}
    assert installed.agentctl("timers", "sync", environment=known).stdout == "db: started\n"
    installed.run(["systemctl", "start", "agent-job@db.service"])
    assert told(installed, "path") == "/run/credentials/agent-job@db.service/db_password"
    assert told(installed, "length") == str(len(SECRET))
    assert "CREDENTIALS_DIRECTORY" not in told(installed, "names")
    wait_until(lambda: not installed.path("/run/credentials/agent-job@db.service/db_password").exists())
    # What a running agent was given, the job is taken to be given too.
    give(installed, *lines)
    installed.systemctl("start")
    assert installed.agentctl("timers", "sync").stdout == "1 timer as declared\n"
    # Without the drop-in it has neither.
    installed.path("/etc/systemd/system/agent-job@.service.d/credentials.conf").unlink()
    installed.run(["systemctl", "daemon-reload"])
    assert installed.run(["systemctl", "start", "agent-job@db.service"], check=False).returncode == 1
    said = installed.journal("-u", "agent-job@db.service", "--output=cat")
    assert "/srv/key/env.toml: may not be read by user agent" in said


def test_the_example_is_a_drop_in_that_systemd_understands_line_by_line(installed: Host) -> None:
    example = (SOURCE / "systemd/credentials.conf").read_text()
    offered = re.findall(r"^#(Load\w+=.+)$", example, re.MULTILINE)
    assert len(offered) == 4
    for line in offered:
        installed.declare("# nothing")
        name, _, file = line.partition("=")[2].partition(":")
        give(installed, line)
        if "Encrypted" in line:
            encrypt(installed, "# nothing", name)
        else:
            installed.write(file, "# nothing", 0o600)
        installed.systemctl("restart")
        assert installed.path(f"{GIVEN}/{name}").read_text() == "# nothing"
