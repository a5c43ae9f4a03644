"""Every query takes an actor, and joins the access table."""

import inspect
import re

import pytest

from projections import (
    access,
    access_log,
    activity,
    api_keys,
    classifications,
    datasets,
    devices,
    images,
    models,
    policies,
    policy_preview,
    results,
    service_accounts,
    statistics,
    teams,
    users,
)
from projections.engine import checkpoints

NOUNS = (
    access,
    access_log,
    activity,
    api_keys,
    checkpoints,
    classifications,
    datasets,
    devices,
    images,
    models,
    policies,
    policy_preview,
    results,
    service_accounts,
    statistics,
    teams,
    users,
)
FOR_ANYBODY = {"checkpoints.position", "models.listed", "models.names", "models.get"}
"""The log's position, and models, which belong to the installation."""

OF_DATASETS = (
    "datasets|images|classifications|results|outdated_results|failures|activity|dataset_access|effective_access|tallies|statistics"
)
BELONGS_TO_A_DATASET = re.compile(rf"\b(?:from|join) (?:{OF_DATASETS})\b")


def queries():
    for noun in NOUNS:
        for name, function in vars(noun).items():
            if inspect.iscoroutinefunction(function) and function.__module__ == noun.__name__ and not name.startswith("_"):
                yield f"{noun.__name__.rpartition('.')[2]}.{name}", function


def statements():
    for noun in NOUNS:
        for name, value in vars(noun).items():
            if isinstance(value, str) and value.startswith(("select", "with")) and "{visible}" not in value:  # a template
                yield pytest.param(value, id=f"{noun.__name__.rpartition('.')[2]}.{name}")
    for order_by, listing in images.LISTINGS.items():
        yield pytest.param(listing.by_dataset, id=f"images {order_by} by dataset")
        yield pytest.param(listing.all_together, id=f"images {order_by} all together")


@pytest.mark.parametrize(("name", "query"), list(queries()), ids=lambda value: value if isinstance(value, str) else "")
def test_every_query_takes_its_reader(name, query):
    parameters = inspect.signature(query).parameters
    assert ("actor" in parameters) is (name not in FOR_ANYBODY)


@pytest.mark.parametrize("statement", list(statements()))
def test_whatever_belongs_to_a_dataset_is_joined_with_what_the_reader_may_see(statement):
    if BELONGS_TO_A_DATASET.search(statement):
        assert re.search(r"(?:from|join) visible v", statement)
        assert "v.subject = %(subject)s" in statement


def test_the_list_of_queries_is_not_empty():
    assert len(list(queries())) >= 20
    assert len(list(statements())) >= 25
