"""Ours and ``systemd-analyze calendar``, side by side: same grammar, same normal form, same elapses."""

from __future__ import annotations

import itertools
import math

import pytest

from agent.declaration.calendar_parse import parse_calendar
from agent.errors import UsageError
from tests.declaration.calendar_reference import Answer, Expressions, local_zone, systemd_answers

ITERATIONS = 6
GENERATED = 30


def our_answer(expression: str, base: int) -> Answer | None:
    try:
        calendar = parse_calendar(expression)
    except UsageError:
        return None
    elapses: list[int] = []
    moment = calendar.next_elapse(base)
    while len(elapses) < ITERATIONS and moment is not None:
        elapses.append(math.floor(moment))
        moment = calendar.next_elapse(moment)
    return Answer(calendar.normalized(), elapses)


CURATED = [
    *("minutely", "hourly", "daily", "weekly", "monthly", "yearly", "annually", "anually", "quarterly", "semiannually"),
    *("semi-annually", "biannually", "bi-annually", "DAILY", "weekly UTC", "Monthly America/New_York"),
    *("Mon", "mon..fri", "Mon-Fri 8:00", "Mon,Wed..Fri,Sunday 12:30", "Sat,Sun *-*-* *:00", "Mon, 12:00", "Tue,"),
    *("Mon..Sun 3:00", "Mon..Mon", "SATURDAY 05:40", "Thu,Fri 2012-*-1,5 11:12:13"),
    *("*-*-*", "*-2-29", "2-29 12:00", "*-02-29..31", "2-30", "*-4-31", "Mon 2-29", "Fri *-*-13 13:13:13"),
    *("*-2~1", "*-*~1", "*-*~1..5", "*-*~1..7/2", "*-*~07/1", "Mon *-5~07/1", "*-*~28", "*-2~28..1", "2~3,5"),
    *("2024-2~1 23:59:59", "Sun *-*~1,2,3,4,5,6,7 2:30", "*-*~5/2,1 3:00", "*-*-29..31/2", "*~01..28"),
    *(
        "2027-1-1",
        "27-1-1",
        "99-1-1",
        "69-12-31",
        "70-1-1",
        "2024..2032/4-2-29",
        "2100-2-28..29",
        "2199-12-31 23:59:59",
    ),
    *("2025/7-*-*", "1970..2199/3-6-1", "00..30-1-1", "*:0/15", "*:0/7", "*:5..20/5", "0/6:00", "5/8:12", "22/1:50"),
    *("*:*:*", "*:*:30", "*:*:0/0.3", "*:*:0/7.3", "*:*:59.999999", "*:*:0.5,1.5", "*:*:5..9.5/0.25", "*:*:0/1,5.5"),
    *("*:*:1.23456789", "*:*:0.0000005", "*:*:10..20", "*:*:0..59", "*:59:59.9999994", "*:0..0", "*:7..7/3"),
    *("1..1:2..10/20", "0:0", "00:00", "24/2-*-*", "2:30", "3:30", "1:30", "0:30", "02:15..45/15", "1..4:0/10"),
    *("0..5:30 UTC", "2:30 Europe/Helsinki", "1:30 America/New_York", "2:00..30/10 Australia/Lord_Howe"),
    *("12:00 EET", "12:00 EEST", "3:30 EEST", "3:30 EET", "1:30 EST", "1:30 EDT", "1:45 +11", "1:45 +1030"),
    *("@0", "@1774746000", "@4102444800", "@ 5", "@+7", "@7258118399", "Mon @1774746000", "@1900000000 Europe/Paris"),
    *("2026-01-01 ", "2026-01-01   12:00", "Mon   12:00", "2-3  UTC", "01,1,001-1", "*:1,1,01,2", "1-1,2,1..2"),
    *("2026-3-29 3:00", "2026-10-25 3:30", "*-3-29 *:*", "*-10-25 3:*", "Sun *-3,10~01..07 *:0/30", "0000-1-1"),
]

BASES = [
    ("Europe/Helsinki", 1709161200),  # 2024-02-29 01:00 local: within a leap day
    ("Europe/Helsinki", 1774740000),  # 2026-03-29: an hour before 03:00 becomes 04:00
    ("Europe/Helsinki", 1792884000),  # 2026-10-25: half an hour into the evening before 04:00 becomes 03:00
    ("Europe/Helsinki", 1792891800),  # 2026-10-25 03:30, the second time
    ("America/New_York", 1772950000),  # 2026-03-08: before 02:00 becomes 03:00
    ("America/New_York", 1793509200),  # 2026-11-01: before 02:00 becomes 01:00
    ("Australia/Lord_Howe", 1775310000),  # 2026-04-05: before 02:00 becomes 01:30, half an hour back
    ("Australia/Lord_Howe", 1790954000),  # 2026-10-04: before 02:00 becomes 02:30
    ("Europe/Dublin", 1901136525),  # 2030-03-30: winter time is the exception here
    ("UTC", 1709164799),  # 2024-02-28 23:59:59
    ("UTC", 4107542300),  # 2100-02-28: no leap year
    ("UTC", 7258000000),  # 2199-12-30: the end is near
    ("UTC", 0),
]


@pytest.mark.parametrize(("zone", "base"), BASES)
def test_normal_form_and_elapses_are_those_of_systemd(zone: str, base: int) -> None:
    generated = itertools.islice(Expressions(base), GENERATED)
    expressions = [*CURATED, *generated]
    answers = systemd_answers(zone, base, expressions, ITERATIONS)
    with local_zone(zone):
        differing = {}
        for expression, theirs in zip(expressions, answers, strict=True):
            ours = our_answer(expression, base)
            if theirs is not None and theirs.gave_up:
                # There is no answer to match, but a job must run all the same.
                assert ours is not None and ours.elapses and ours.elapses[0] >= base, expression
            elif ours != theirs:
                differing[expression] = (ours, theirs)
    assert differing == {}


MALFORMED = [
    *(
        "",
        " ",
        "  ",
        "UTC",
        " UTC",
        "Europe/Helsinki",
        "daily ",
        " daily",
        "daily  UTC",
        "dailyy",
        "dayly",
        "fortnightly",
    ),
    *("Mo", "Mond", "Montag", "Mon Tue", "Mon,,Tue", ",Mon", "Mon.", "Mon..", "Mon-", "Mon...Fri", "Mon..Tue..Wed"),
    *(
        "Fri..Mon",
        "Sun-Mon",
        "Mon..xyz",
        "Mon-2-3",
        "Mon/2",
        "Mon;Tue",
        "Mon12:00",
        "Mon,12:00",
        "Mon *",
        "*",
        "**",
        "5",
    ),
    *("1-2-3-4", "1--2", "1-", "-1", "1-2-", "2026", "2026-13-1", "2026-0-1", "2026-1-0", "2026-1-32", "1969-1-1"),
    *(
        "2200-1-1",
        "100-1-1",
        "2026-1-1T12:00",
        "2026/0-1-1",
        "2026-1-1/31",
        "2026-1~29",
        "2026~1-1",
        "2026-1~0",
        "*~*~*",
    ),
    *("*-*~1/1", "*-*~5..1", "1~2~3", "~1", "*-*-*-*", "*-*-* *-*-*", "12", "12:", ":30", "12:60", "24:00", "25:00"),
    *("12:30:60", "12:30:30:30", "12:30:", "12:30:5.", "12:30:.5", "12:30:5..5.5", "12:30:5..4", "12:30:1..1.5"),
    *("12.5:30", "*:0/60", "*:0/0", "*:30/40", "*:10..5", "*:0..70/60", "*:0/", "*:/5", "*/5:00", "*:*/5", "0/24:00"),
    *("*:0,", "*:,0", "*:0,,1", "*:0..", "*:..5", "*:0...5", "*:0/5/5", "*:0..5..9", "*:1-5", "*:0/-5", "*:-5", "*:+5"),
    *("12:00 Mon", "12:00 2026-1-1", "12:00 daily", "12:00 UTC UTC", "12:00 Nowhere/City", "12:00 europe/helsinki"),
    *(
        "12:00 Europe",
        "12:00 Europe//Helsinki",
        "12:00 ../../etc/passwd",
        "12:00 /etc/localtime",
        "12:00 +3",
        "12:00 GMT+3",
    ),
    *(
        "12:00UTC",
        "12:00 EET EET",
        "12:00 zone.tab",
        "12:00 tzdata.zi",
        "@",
        "@x",
        "@-1",
        "@1.5",
        "@1 12:00",
        "@7258118400",
    ),
    *("@99999999999999999999", "0x10:00", "1e1:00", "99999999999:00", "12:00:99999999999999999999", "2147483648-1-1"),
    *(
        "12:00\n",
        "12:\t00",
        "12:00\x7f",
        "½:00",
        "١٢:00",
        "\uff11\uff12:00",
        "wee\u212aly",
        "$(id)",
        "'12:00'",
        "12:00 #",
        "\\",
    ),
    *("*:0," * 300, "1," * 5000 + "1-1", "9" * 5000 + ":00", "*:*:0." + "x" * 100),
    *("?-?-?", "L", "*-*-L", "*-*-1W", "1#2", "now", "tomorrow", "every 5 minutes", "@daily", "@reboot", "0 0 * * *"),
]


def test_what_systemd_refuses_is_refused_in_one_line() -> None:
    answers = dict(zip(MALFORMED, systemd_answers("UTC", 0, MALFORMED, 1), strict=True))
    assert {text: answer for text, answer in answers.items() if answer is not None} == {}
    for text in MALFORMED:
        with pytest.raises(UsageError) as caught:
            parse_calendar(text)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 400
