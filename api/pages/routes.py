"""All pages, with their own answers to errors."""

from litestar import Router

from api.pages import account, email_changes, home, invitations, password_resets, profile, registrations, rendering, setup, sign_in
from api.pages.problems import HANDLERS

PAGES = (
    rendering.styles,
    home.home,
    sign_in.sign_in_page,
    sign_in.sign_in,
    sign_in.sign_out,
    account.account_page,
    account.send_again,
    account.end_sessions,
    account.password_page,
    account.change_password,
    profile.profile_page,
    profile.change_profile,
    registrations.register_page,
    registrations.register,
    registrations.verify_page,
    registrations.verify,
    password_resets.forgot_password_page,
    password_resets.forgot_password,
    password_resets.reset_page,
    password_resets.reset,
    email_changes.confirm_page,
    email_changes.confirm,
    invitations.invitation_page,
    invitations.accept,
    setup.setup_page,
    setup.set_up,
)


ROUTER = Router("/", route_handlers=PAGES, exception_handlers=HANDLERS)
