"""The file and network calls of a process and its descendants, as strace recorded them."""

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path

CREATING = {"mkdir", "mkdirat", "mknod", "mknodat", "symlink", "symlinkat", "link", "linkat", "rename", "renameat", "renameat2", "creat"}
NEW_NAME_IS_LAST = CREATING - {"mkdir", "mkdirat", "mknod", "mknodat", "creat"}
TRACED = "%file,connect,sendto,sendmsg,sendmmsg"

CALL = re.compile(r"^\d+ +(?:[\d:.]+ +)?(\w+)\((.*)\) += (-?\d+)")
INTERNET = re.compile(r'sin6?_port=htons\((\d+)\).*?(?:inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)")')
TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')


def command(log: Path, *argv: str) -> list[str]:
    return ["strace", "-f", "-qq", "-s", "300", "--seccomp-bpf", "-e", f"trace={TRACED}", "-o", str(log), *argv]


def calls(log: Path) -> Iterator[tuple[str, str, int]]:
    """Name, arguments and result of each call, also of those that strace shows in two halves."""
    halves: dict[str, str] = {}
    for line in log.read_text(errors="replace").splitlines():
        pid = line.split(" ", 1)[0]
        if line.endswith("<unfinished ...>"):
            halves[pid] = line.removesuffix("<unfinished ...>")
            continue
        whole = halves.pop(pid, "") + line.partition(" resumed>")[2] if " resumed>" in line else line
        if match := CALL.match(whole):
            yield match[1], match[2], int(match[3])


def created_files(log: Path) -> set[Path]:
    """The absolute paths that were created. Calls that failed created nothing."""
    found = set()
    for name, arguments, result in calls(log):
        if result < 0 or not (name in CREATING or "O_CREAT" in arguments):
            continue
        names = TEXT.findall(arguments)
        if names and (path := names[-1 if name in NEW_NAME_IS_LAST else 0]).startswith("/"):
            found.add(Path(path))
    return found


def contacted(log: Path) -> set[tuple[str, int]]:
    """The internet addresses and ports that were connected to, or sent to, whether anything answered or not."""
    found = set()
    for _, arguments, _ in calls(log):
        for port, four, six in INTERNET.findall(arguments):
            found.add((four or six, int(port)))
    return found


def is_foreign(address: str) -> bool:
    return not ipaddress.ip_address(address).is_loopback
