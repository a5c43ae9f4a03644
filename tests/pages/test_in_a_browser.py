"""Every page in a real browser, with scripts and without."""

from itertools import count

import pytest

from tests.pages.conftest import PASSWORD
from tests.rigs.waiting import wait_until

pytestmark = pytest.mark.long
numbers = count(1)


def new_address():
    return f"ada{next(numbers)}@example.org"


def fill_in(tab, **fields):
    for field, text in fields.items():
        tab.type(field, text)


def sign_in(tab, installation, address, password=PASSWORD):
    tab.open(f"{installation.url}/sign-in")
    tab.type("email", address)
    tab.type("password", password)
    tab.click("Sign in")


def test_a_person_registers_verifies_the_address_and_signs_in(tab, installation):
    address = new_address()
    tab.open(installation.url)
    tab.click("Create an account")
    fill_in(tab, email=address, username=address[:-12], first_name="Ada", last_name="Byron", password=PASSWORD)
    tab.click("Create the account")
    assert "on its way" in tab.text
    sign_in(tab, installation, address)
    assert "Your e-mail address is not verified" in tab.text
    tab.click("Send the mail again")
    assert tab.path == "/account?after=sent"
    tab.open(f"{installation.url}/account/verify?token={installation.token(address)}")
    tab.type("password", "not the right password")
    tab.click("Verify the address")
    assert "This is not the password" in tab.text
    assert tab.focused == "problem"
    tab.type("password", PASSWORD)
    tab.click("Verify the address")
    assert "Your e-mail address is verified" in tab.text
    sign_in(tab, installation, address)
    assert tab.path == "/account"
    assert "Ada Byron" in tab.text


def test_a_person_sees_and_ends_sessions_changes_the_password_and_signs_out(chromium, tab, installation):
    address = new_address()
    installation.account(address)
    sign_in(tab, installation, address)
    with chromium.page() as other:
        sign_in(other, installation, address)
        tab.open(f"{installation.url}/account")
        tab.click("End")
        assert "The session has ended" in tab.text
        wait_until(lambda: other.open(f"{installation.url}/account") or "Your session has ended" in other.text, within=10)
    tab.click("Change your password")
    tab.type("current_password", "a wrong password")
    tab.type("password", "another horse battery 9")
    tab.click("Change the password")
    assert "The current password is wrong" in tab.text
    tab.type("current_password", PASSWORD)
    tab.type("password", "another horse battery 9")
    tab.click("Change the password")
    assert "Your password was changed" in tab.text
    tab.click("Sign out")
    assert "You are signed out" in tab.text
    assert [cookie["name"] for cookie in tab.cookies()] == []
    sign_in(tab, installation, address, "another horse battery 9")
    assert tab.path == "/account"


def test_a_person_resets_a_forgotten_password(tab, installation):
    address = new_address()
    installation.account(address)
    tab.open(f"{installation.url}/sign-in")
    tab.click("Forgot your password?")
    tab.type("email", address)
    tab.click("Send the link")
    assert "a mail with a link is on its way" in tab.text
    link = f"{installation.url}/account/reset?token={installation.token(address)}"
    tab.open(link)
    tab.open(link)
    tab.type("password", "passwordpassword")
    tab.click("Change the password")
    assert "easy to guess" in tab.text
    tab.type("password", "another horse battery 9")
    tab.click("Change the password")
    assert "Your password was changed" in tab.text
    sign_in(tab, installation, address, "another horse battery 9")
    assert tab.path == "/account"
    tab.open(link)
    assert "This link is invalid, was used already, or has expired" in tab.text
    tab.click("Request a new link")
    assert tab.path == "/forgot-password"


def test_a_person_accepts_an_invitation(tab, installation):
    address = new_address()
    installation.invite(address)
    tab.open(f"{installation.url}/account/invitation?token={installation.token(address)}")
    assert address in tab.text
    assert "researcher" in tab.text
    fill_in(tab, username="ab", first_name="Ada", last_name="Byron", password=PASSWORD)
    tab.click("Create the account")
    assert "User name must have 3 to 50 characters" in tab.text
    assert tab.evaluate("document.getElementById('first_name').value") == "Ada"
    assert tab.evaluate("document.getElementById('password').value") == ""
    tab.type("username", address[:-12])
    tab.type("password", PASSWORD)
    tab.click("Create the account")
    assert "Your account is ready" in tab.text
    sign_in(tab, installation, address)
    assert address in tab.text


def test_a_person_confirms_a_new_address(tab, installation):
    address, new = new_address(), new_address()
    member = installation.account(address)
    installation.request_email(member, new)
    sign_in(tab, installation, address)
    assert f"{new}, not confirmed yet" in tab.text
    tab.open(f"{installation.url}/account/email?token={installation.token(new)}")
    tab.click("Confirm the address")
    assert "Your new e-mail address is confirmed" in tab.text
    assert tab.path == "/account?after=email"


def test_a_session_that_another_process_ends_is_over_within_ten_seconds(tab, installation):
    address = new_address()
    member = installation.account(address)
    sign_in(tab, installation, address)
    installation.end_sessions(member)
    wait_until(lambda: tab.open(f"{installation.url}/account") or "Your session has ended" in tab.text, within=10)
    assert tab.cookies() == []


def test_a_session_of_a_page_is_none_of_the_api(tab, installation):
    address = new_address()
    installation.account(address)
    sign_in(tab, installation, address)
    assert [(cookie["name"], cookie["httpOnly"], cookie["sameSite"]) for cookie in tab.cookies()] == [("bioscope_page", True, "Strict")]
    tab.open(f"{installation.url}/api/users/me")
    assert "Not authenticated" in tab.text
    tab.open(f"{installation.url}/account")
    assert address in tab.text


def test_a_form_of_another_site_is_refused(tab, installation, tmp_path):
    address = new_address()
    installation.account(address)
    sign_in(tab, installation, address)
    page = tmp_path / "page.html"
    page.write_text(f'<form method="post" action="{installation.url}/sign-out"><button>Win a prize</button></form>')
    tab.open(page.as_uri())
    tab.click("Win a prize")
    assert "This form was not sent from a page of this site" in tab.text
    tab.open(f"{installation.url}/account")
    assert address in tab.text


def test_the_first_administrator_sets_the_installation_up(tab, installation):
    if installation.log.administrators():
        pytest.skip("it was set up with scripts")
    address = new_address()
    tab.open(f"{installation.url}/setup?token={installation.setup_token}")
    fill_in(tab, email=address, username=address[:-12], first_name="Ada", last_name="Byron", password=PASSWORD)
    tab.click("Create the account")
    assert "You are the first administrator" in tab.text
    sign_in(tab, installation, address)
    assert "admin" in tab.text
    tab.open(f"{installation.url}/setup?token={installation.setup_token}")
    assert "This address is invalid or was used already" in tab.text


def pages_of(tab, installation):
    """Open every page that has something to show, one after the other."""
    address, new, guest = new_address(), new_address(), new_address()
    member = installation.account(address)
    for path in ("/", "/sign-in", "/register", "/register?sent=true", "/forgot-password", "/forgot-password?sent=true"):
        tab.open(installation.url + path)
        yield path
    installation.invite(guest)
    tab.open(f"{installation.url}/account/invitation?token={installation.token(guest)}")
    yield "/account/invitation"
    tab.type("username", "ab")
    tab.evaluate("document.querySelector('form').noValidate = true")
    tab.click("Create the account")
    yield "/account/invitation, refused"
    sign_in(tab, installation, address)
    yield "/account"
    tab.click("Change your password")
    yield "/account/password"
    installation.request_email(member, new)
    tab.open(f"{installation.url}/account/email?token={installation.token(new)}")
    yield "/account/email"
    tab.open(f"{installation.url}/account/email?token=x")
    yield "/account/email, refused"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_page_fits_a_small_screen_and_names_its_controls(chromium, installation, dark):
    with chromium.page() as tab:
        tab.emulate(width=320, dark=dark)
        for path in pages_of(tab, installation):
            assert tab.evaluate("document.scrollingElement.scrollWidth") <= 320, path
            controls = tab.controls()
            assert [role for role, name in controls if role in {"textbox", "button", "link"} and not name.strip()] == [], path
            assert [role for role, _ in controls].count("heading") >= 1, path
            small = tab.evaluate(
                """[...document.querySelectorAll("input:not([type=hidden]):not([hidden]), button")]
                  .filter(one => one.getBoundingClientRect().height < 24).length"""
            )
            assert small == 0, path


def test_a_person_signs_in_with_the_keyboard_alone(tab, installation):
    address = new_address()
    installation.account(address)
    tab.open(f"{installation.url}/sign-in")
    for _ in range(2):
        tab.key("Tab", 9)
    assert tab.focused == "email"
    tab.call("Input.insertText", text=address)
    tab.key("Tab", 9)
    assert tab.focused == "password"
    tab.call("Input.insertText", text=PASSWORD)
    tab.loading(lambda: tab.key("Enter", 13))
    assert tab.path == "/account"
