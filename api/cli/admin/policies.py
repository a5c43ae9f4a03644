"""Commands for policies, through the API: rules by which labels and verdicts follow from stored scores."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar, cast
from uuid import UUID

import click

from api.cli.admin.models import REASON
from api.cli.commands import Choice, Id, argument, group, json_option
from api.cli.common import API_URL, AS_OF
from api.cli.exit_codes import WRONG_USE
from api.cli.numbers import FiniteNumber
from api.cli.output import fail, print_json, print_message
from api.cli.shapes import Policy, PolicyChange, PolicyPreview
from domain.policy import PolicyRules, PolicyScope

F = TypeVar("F", bound=Callable[..., Any])

SCOPE = argument("scope", type=Choice([scope.value for scope in PolicyScope]), help="What the policy applies to.")
TARGET = argument("target", metavar="NAME|ID", help="Id of the job, or name or id of the dataset or model.")
NUMBERS = "[LABEL=]NUMBER"


@group()
def policies() -> None:
    """Change labels and verdicts of results without running a model again.

    A policy derives them from the stored scores of a job, a dataset or a model. That of a job precedes that of its dataset, and that of a
    dataset precedes that of a model. What the model said stays readable. docs/policies.md explains the rules.
    """


@policies.command("list", example="bioscope policies list")
@click.option("--dataset", type=Id(), help="Only policies of this dataset and of its jobs.")
@click.option("--withdrawn", is_flag=True, help="List policies that were withdrawn too.")
@json_option(list[Policy])
@API_URL
def list_policies(dataset: UUID | None, url: str | None, *, withdrawn: bool, as_json: bool) -> None:
    """List the policies that are in force, the newest change first."""
    from api.cli.client import policies
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        found = policies.read_policies(client, dataset=dataset, withdrawn=withdrawn)
        names = policies.model_names(client)
    if as_json:
        print_json(found)
    else:
        policies.print_policies(found, names)


@policies.command(example="bioscope policies show model pbc8")
@SCOPE
@TARGET
@AS_OF
@json_option(Policy)
@API_URL
def show(scope: str, target: str, as_of: str | None, url: str | None, *, as_json: bool) -> None:
    """Show a policy, and whether all results follow it.

    With --as-of, the policy that was in force then.
    """
    from api.cli.client import policies
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        chosen = PolicyScope(scope)
        found = policies.read_policy(client, chosen, policies.target_id(client, chosen, target), as_of=as_of)
    if as_json:
        print_json(found)
    else:
        policies.print_policy(found, as_of=as_of)


def rule_options(command: F) -> F:
    """The options of the rules, which the command gets as `rules`."""
    options = (
        click.option(
            "--review-below",
            metavar=NUMBERS,
            multiple=True,
            help="Results with a lower confidence need a review. With a label, only those with this label. Repeatable.",
        ),
        click.option(
            "--label-at",
            metavar="LABEL=NUMBER",
            multiple=True,
            help="Choose this label where its score reaches the number, even if another score is higher. Repeatable.",
        ),
        click.option(
            "--applies-at",
            metavar=NUMBERS,
            multiple=True,
            help="Where labels can apply together: the score from which a label applies. Repeatable.",
        ),
        click.option(
            "--review-outside", type=FiniteNumber(), nargs=2, metavar="LOWEST HIGHEST", help="Numbers outside of these need a review."
        ),
    )

    @wraps(command)
    def with_rules(
        *arguments: Any,
        review_below: Sequence[str],
        label_at: Sequence[str],
        applies_at: Sequence[str],
        review_outside: tuple[float, float] | None,
        **options: Any,
    ) -> Any:
        return command(*arguments, rules=_rules(review_below, label_at, applies_at, review_outside), **options)

    for option in reversed(options):
        with_rules = option(with_rules)
    return cast(F, with_rules)


@policies.command(example="bioscope policies preview model pbc8 --review-below 0.9")
@SCOPE
@TARGET
@rule_options
@json_option(PolicyPreview)
@API_URL
def preview(scope: str, target: str, rules: PolicyRules, url: str | None, *, as_json: bool) -> None:
    """Show what a policy would change, and set nothing.

    It counts the newest 5,000 results at most. Results that follow the policy of a nearer scope are not counted. This needs the same
    rights as setting the policy.
    """
    from api.cli.client import policies
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        chosen = PolicyScope(scope)
        found = policies.preview(client, chosen, policies.target_id(client, chosen, target), rules)
    if as_json:
        print_json(found)
    else:
        policies.print_preview(found)


@policies.command("set", example="bioscope policies set model pbc8 --review-below 0.9 --reason 'A trial'")
@SCOPE
@TARGET
@rule_options
@REASON
@API_URL
def set_policy(scope: str, target: str, rules: PolicyRules, reason: str, url: str | None) -> None:
    """Set the policy of a job, a dataset or a model. It replaces all earlier rules of that policy.

    New results follow it at once, and stored ones soon after: `bioscope policies show` says when all do. A policy of a job or a dataset
    needs the role researcher and the grant editor; one of a model is for administrators and promoters of the model.
    """
    from api.cli.client import policies
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        chosen = PolicyScope(scope)
        is_new = policies.set_policy(client, chosen, policies.target_id(client, chosen, target), rules, reason)
    print_message(f"The policy of this {scope} is set." if is_new else f"The {scope} has this policy already. The reason was not recorded.")


@policies.command(example="bioscope policies withdraw model pbc8 --reason 'The trial is over'")
@SCOPE
@TARGET
@REASON
@API_URL
def withdraw(scope: str, target: str, reason: str, url: str | None) -> None:
    """End a policy: results follow that of the next scope, or their model.

    This needs the same rights as setting it.
    """
    from api.cli.client import policies
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        chosen = PolicyScope(scope)
        policies.withdraw(client, chosen, policies.target_id(client, chosen, target), reason)
    print_message(f"The policy of this {scope} is withdrawn.")


@policies.command(example="bioscope policies history model pbc8")
@SCOPE
@TARGET
@AS_OF
@json_option(list[PolicyChange])
@API_URL
def history(scope: str, target: str, as_of: str | None, url: str | None, *, as_json: bool) -> None:
    """Show all changes of a policy, oldest first: which rules, who set them, and why.

    With --as-of, the changes up to then: the last one was in force.
    """
    from api.cli.client import policies
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        chosen = PolicyScope(scope)
        changes = policies.read_history(client, chosen, policies.target_id(client, chosen, target), as_of=as_of)
    if as_json:
        print_json(changes)
    else:
        policies.print_history(changes)


def _rules(
    review_below: Sequence[str], label_at: Sequence[str], applies_at: Sequence[str], review_outside: tuple[float, float] | None
) -> PolicyRules:
    below, below_for = _numbers("--review-below", review_below)
    applies, applies_for = _numbers("--applies-at", applies_at)
    chosen_at, at = _numbers("--label-at", label_at)
    if chosen_at is not None:
        fail("--label-at needs a label, such as neutrophil=0.3", WRONG_USE)
    return PolicyRules(
        review_below=below,
        review_below_for=below_for,
        label_at=at,
        applies_at=applies,
        applies_at_for=applies_for,
        review_outside=review_outside,
    )


def _numbers(option: str, texts: Sequence[str]) -> tuple[float | None, dict[str, float]]:
    """The number for all labels, and those of single labels. A label may contain `=`."""
    for_all: float | None = None
    by_label: dict[str, float] = {}
    for text in texts:
        label, _, number = text.rpartition("=")
        if (label in by_label) if label else (for_all is not None):
            fail(f"{option} is given twice for {label or 'all labels'}", WRONG_USE)
        try:
            value = float(number)
        except ValueError:
            fail(f"{option} {text!r} is not a number: write 0.8, or 0.8 for one label as label=0.8", WRONG_USE)
        if not 0 <= value <= 1:
            fail(f"{option} {text!r} is not a number from 0 to 1", WRONG_USE)
        if label:
            by_label[label] = value
        else:
            for_all = value
    return for_all, by_label
