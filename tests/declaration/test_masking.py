"""Which variables are secret, and how their values disappear."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.declaration.masking import SHORT, looks_secret, mask, mask_field


@pytest.mark.parametrize(
    "name",
    ["PASSWORD", "DB_PASSWORD", "PGPASSWD", "API_KEY", "apikey", "Token", "AWS_SECRET_ACCESS_KEY", "CREDENTIALS", "KEY",
     "DB_PASS", "ENCRYPTION_KEYS", "BASIC_AUTH", "SSH_PASSPHRASE"],
)  # fmt: skip
def test_a_variable_named_for_a_secret_is_secret(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize("name", ["MONKEY", "KEYBOARD", "PATH", "PWD", "OLDPWD", "AUTHOR", "PASSENGER", "HOME", ""])
def test_a_word_that_merely_contains_one_is_not(name: str) -> None:
    assert not looks_secret(name)


def test_a_secret_is_replaced_wherever_it_stands_longest_first() -> None:
    assert mask("postgres://u:hunter22@h?x=hunter2", {"hunter2", "hunter22"}) == "postgres://u:****@h?x=****"


def test_a_short_secret_is_not_searched_for_in_other_text() -> None:
    assert mask("a cat", {"a"}) == "a cat"


def test_a_short_secret_hides_the_field_it_was_written_into() -> None:
    assert mask_field("pin=abc", {"abc"}) == "****"


def test_a_field_keeps_what_is_no_secret() -> None:
    assert mask_field("user:hunter2@host", {"hunter2"}) == "user:****@host"


@given(st.text(min_size=1, max_size=10), st.text(max_size=10), st.text(max_size=10))
def test_no_secret_is_left_in_its_field(secret: str, before: str, after: str) -> None:
    masked = mask_field(before + secret + after, {secret})
    assert masked == "****" or (len(secret) >= SHORT and secret not in masked.split("****"))
