"""Each private name of Faust and aiokafka that is used exists, and is used in two modules only."""

import ast
import re
from pathlib import Path

import aiokafka
import faust
import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as driver

from infrastructure.kafka import aiokafka_internals, faust_internals

pytestmark = pytest.mark.anyio

INTERNALS = {"infrastructure/kafka/aiokafka_internals.py", "infrastructure/kafka/faust_internals.py"}
PRIVATE = re.compile(r"_[a-z]\w*\Z")

FAUST = {
    "faust.App": faust.App,
    "faust.Worker": faust.Worker,
    "TableManager": TableManager,
    "driver.AIOKafkaConsumerThread": driver.AIOKafkaConsumerThread,
    "driver.Consumer": driver.Consumer,
}
FAUST_NAMES = [(owner, name) for owner, names in faust_internals.PRIVATE_NAMES.items() for name in names]
AIOKAFKA_NAMES = [(owner, name) for owner, names in aiokafka_internals.PRIVATE_NAMES.items() for name in names]


@pytest.mark.parametrize(("owner", "name"), FAUST_NAMES)
def test_faust_has_what_is_used_or_overridden(owner, name):
    assert hasattr(FAUST[owner], name) or name in set_by_init(FAUST[owner])


@pytest.mark.parametrize(("owner", "name"), AIOKAFKA_NAMES)
async def test_aiokafka_has_what_is_used(owner, name):
    producer = aiokafka.AIOKafkaProducer(enable_idempotence=True)
    consumer = aiokafka.AIOKafkaConsumer()
    owners = {
        "AIOKafkaProducer": producer,
        "AIOKafkaConsumer": consumer,
        "AIOKafkaClient": AIOKafkaClient,
        "Fetcher": Fetcher,
        "GroupCoordinator": GroupCoordinator,
        "TransactionManager": producer._txn_manager,
        "Sender": producer._sender,
    }
    try:
        assert hasattr(owners[owner], name) or name in set_by_init(owners[owner])
    finally:
        await consumer.stop()
        await producer.stop()


@pytest.mark.parametrize("module", sorted(INTERNALS))
def test_every_private_name_that_is_used_is_listed(module):
    listed = {name for _, name in (*FAUST_NAMES, *AIOKAFKA_NAMES)}
    tree = ast.parse(Path(module).read_text())
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)} | set(class_fields(tree))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and PRIVATE.match(node.attr)}
    assert used - own <= listed
    assert used & listed, "the module uses private names"


def test_no_other_module_uses_a_private_name_of_the_clients():
    """`ruff` refuses private names of others everywhere but in these modules."""
    configured = re.findall(r'^"(infrastructure/kafka/\S+)" = \["SLF001"\]', Path("pyproject.toml").read_text(), re.MULTILINE)
    assert set(configured) == INTERNALS


def class_fields(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for field in node.body:
                match field:
                    case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                        yield name


def set_by_init(owner):
    """The attributes that methods of a class, or of one of its bases, assign to itself."""
    kind = owner if isinstance(owner, type) else type(owner)
    names = set()
    for base in kind.__mro__:
        for method in vars(base).values():
            code = getattr(method, "__code__", None)
            names |= set(code.co_names) if code else set()
    return names
