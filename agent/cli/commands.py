"""The table of agentctl's commands: light enough to be read before click is imported.

A command's module is imported when it is typed, and not before: ``agentctl status`` pays for ``status`` alone.
"""

from __future__ import annotations

#: name -> (the module in agent.cli that holds the click command under the attribute ``command`` or the given one, help)
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("run:run", "Run the agent in the foreground."),
    "run-once": ("run:run_once", "Run one job or service in the foreground and exit with its code."),
    "status": ("status:status", "Show the agent and its services."),
    "start": ("actions:start", "Start services and wait until they run."),
    "stop": ("actions:stop", "Stop services and wait until nothing of them is left."),
    "restart": ("actions:restart", "Restart services and wait until they run."),
    "reload": ("reload:reload", "Make the running agent read its declaration again."),
    "upgrade": ("upgrade:upgrade", "Become another version, without restarting a single worker."),
    "validate": ("validate:validate", "Check a declaration and show everything that is wrong with it."),
    "config": ("config:config", "Show the declaration as the agent understands it."),
    "top": ("top:top", "Watch services, rates, drops and the largest flows."),
    "logs": ("logs:logs", "Show what a service printed."),
    "events": ("events:events", "Show what happened to the services."),
    "capture": ("capture:capture", "Ask captures for packets, and tell them what to keep."),
    "scan": ("scan:scan", "Run, hold and end scans."),
    "hosts": ("hosts:hosts", "Show the hosts that captures have seen."),
    "drift": ("drift:drift", "Show where declaration, sockets, captures and scans contradict each other."),
    "expect": ("expect:expect", "Write down what is to be expected."),
    "flows": ("flows:flows", "Show who talked to whom, or export it."),
    "timers": ("timers:timers", "Show when jobs run next and how they ended last."),
    "calendar": ("calendar:calendar", "Show when a calendar expression elapses."),
    "init": ("init:init", "Create the directories and a first declaration."),
    "doctor": ("doctor:doctor", "Check what the agent needs from this host, and say how to mend it."),
    "selftest": ("selftest:selftest", "Prove that this program works on this host."),
    "install": ("install:install", "Install this program and its units below a prefix."),
    "uninstall": ("uninstall:uninstall", "Take an installation back."),
    "completion": ("completion:completion", "Print the completion script of a shell."),
}

CAPTURE: dict[str, tuple[str, str]] = {
    "rotate": ("capture_rotate:rotate", "Have captures close the segments that they are writing."),
    "list": ("capture_list:list_segments", "Show what is stored, and how far back."),
    "trigger": ("capture_trigger:trigger", "Have an armed capture keep what it saw."),
    "pin": ("capture_pins:pin", "Keep the packets of a time when others go."),
    "pins": ("capture_pins:pins", "Show what is pinned."),
    "unpin": ("capture_pins:unpin", "Take pins back."),
    "query": ("capture_query:query", "Find packets again: by filter, time, interface."),
    "stream": ("capture_stream:stream", "Watch packets as they are captured, in Wireshark."),
    "report": ("capture_report:report", "Make one page of what was captured, lost, and seen."),
}
"""As ``COMMANDS``, for ``agentctl capture``."""

SCAN: dict[str, tuple[str, str]] = {
    "list": ("scan_list:list_runs", "Show the scans and their runs."),
    "show": ("scan_show:show", "Show one run: what it covered and found."),
    "hosts": ("scan_hosts:hosts", "Show what is so now: hosts, ports, since when."),
    "diff": ("scan_diff:diff", "Show what changed between two runs."),
    "export": ("scan_export:export", "Write a run as XML of nmap's, JSON, CSV or Markdown."),
    "report": ("scan_report:report", "Make one page of hosts, ports over time, changes, drift."),
    "import": ("scan_import:import_reports", "Take reports of nmap and masscan into a scan."),
    "now": ("scan_now:now", "Start a scan that is not due, and watch it."),
    "pause": ("scan_orders:pause", "Have scans pause, or wait when they are started."),
    "resume": ("scan_orders:resume", "Have paused scans go on."),
    "stop": ("scan_orders:stop", "End the runs that are under way, and keep what they found."),
}
"""As ``COMMANDS``, for ``agentctl scan``."""

FLOWS: dict[str, tuple[str, str]] = {
    "top": ("flows_top:top", "Show what was most."),
    "export": ("flows_export:export", "Send flow records to a collector, or write them as lines of JSON."),
}
"""As ``COMMANDS``, for ``agentctl flows``."""

EXPECT: dict[str, tuple[str, str]] = {
    "from-scan": ("expect_from_scan:from_scan", "Write an expectation of what a scan found, to be edited."),
}
"""As ``COMMANDS``, for ``agentctl expect``."""

COMPLETE_VARIABLE = "_AGENTCTL_COMPLETE"
"""The variable by which a completion script asks; click's scripts derive it from the program's name."""
