"""New e-mail addresses: those that can get mail are accepted, and all spellings of one mailbox are equal."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domain import email_address
from domain.email_address import mailbox, mailed, new_address, spellings
from domain.errors import Invalid

ACCEPTED = [
    "ada@example.org",
    "Ada.Lovelace+lab@Sub.Example.ORG",
    "o'brien_{x}@ex-ample.org",
    "ada@lab_7.intern.example",
    "ada@münchen.example",
    "ada@MÜNCHEN.example",
    "ada@xn--mnchen-3ya.example",
    "ada@straße.example",
    "ada@例え.テスト",
    "ada@\u05d0\u05d1.example",
    "x" * 64 + "@example.org",
]
REFUSED = [
    "a@@example.org",
    "a@example.org,b@example.org",
    "<a@example.org>",
    "(a)v@example.org",
    ".a@example.org",
    "a.@example.org",
    "a..b@example.org",
    "a@example..org",
    "a@.example.org",
    "a@example.org.",
    "v@example.org;",
    '"a b"@example.org',
    '"a@b"@example.org',
    "a@-example.org",
    "a@example-.org",
    "a@exa/mple.org",
    "a@[192.0.2.1]",
    "a@192.0.2.1",
    "a@example.org:25",
    "a@" + "x" * 64 + ".org",
    "x" * 65 + "@example.org",
    "ä@example.org",
    "z\u202ec@example.org",
    "z@\u202eexample.org",
    "ada@exa\u00admple.org",
    "ada@exa\u034fmple.org",
    "ada@exa\u200bmple.org",
    "ada@exa\u200cmple.org",
    "ada@exa\u200dmple.org",
    "ada@exa\u2060mple.org",
    "ada@exa\ufe0fmple.org",
    "ada@exa\ufeffmple.org",
    "ada@example\u3002org.x",
    "\uff41da@example.org",
]


@pytest.mark.parametrize("address", ACCEPTED)
def test_an_address_that_can_get_mail_is_stored_as_it_is(address):
    assert new_address(f" {address} ") == address


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_gets_no_mail_or_is_mailed_in_another_spelling_is_refused_as_a_new_one(address):
    with pytest.raises(Invalid) as refused:
        new_address(address)
    assert [error["loc"] for error in refused.value.errors] == [["body", "email"]]
    assert address not in str(refused.value)
    assert email_address.changed_address("ada@example.org", "ada@exa\u00admple.org") == "ada@example.org"


def test_the_present_address_may_be_older_than_the_rule():
    assert email_address.changed_address("ä@example.org", "ä@example.org") is email_address.UNSET


@pytest.mark.parametrize(
    "address",
    [
        "ada@münchen.example",
        "Ada@MÜNCHEN.example",
        "ada@xn--mnchen-3ya.example",
        "ada@XN--MNCHEN-3YA.EXAMPLE",
        "ada@mün\u00adchen.example",
        "ada@m\u200bünchen.example",
        "ada@\uff4dünchen.example",
        "ada@mu\u0308nchen\u3002example",
    ],
)
def test_all_spellings_of_a_mailbox_are_equal(address):
    assert mailbox(address) == "ada@münchen.example"
    assert spellings(address)[0] == email_address.canonical(address)
    assert {"ada@münchen.example", "ada@xn--mnchen-3ya.example"} <= set(spellings(address))


LETTERS = st.sampled_from("aAß\u0131İ\u017fäΣς\u00ad\u200b\u200d\u3002.@\uff41\uff0e-_ \u0308例א\u2100\u1e9e") | st.characters()


@given(st.text(LETTERS, max_size=12))
@example("xn--a.org")
@example("xn--strae-oqa.org")
@example("ẞ.org")
def test_mail_to_one_mailbox_is_counted_as_one_however_its_domain_is_written(domain):
    try:
        sent = mailed(f"ada@{domain}")
    except UnicodeError:
        assert mailbox(f"ada@{domain}")
        return
    assert mailbox(f"ada@{domain}") == mailbox(sent) == mailbox(sent.upper().replace("ADA@", "ada@"))
