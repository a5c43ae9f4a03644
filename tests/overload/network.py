"""A network namespace for one process and its children: loopback with addresses in many IPv6 networks."""

import os
import shutil
import subprocess
import sys

INSIDE = "OVERLOAD_NETWORK"
NETWORKS = 24  # of IPv6, a /64 each
IPV4 = [f"127.7.0.{number + 1}" for number in range(NETWORKS)]
OTHER = "192.0.2.1"  # a machine that has a loopback alone resolves no IPv4 address (AI_ADDRCONFIG)
IPV6 = [f"2001:db8:0:{number:x}::1" for number in range(NETWORKS)]


def enter():
    """Start this program anew in such a network, where the system permits that; return whether it runs in one."""
    if INSIDE in os.environ:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        for address in (OTHER, *IPV6):
            subprocess.run(["ip", "address", "add", address, "dev", "lo"], check=True)
        return True
    unshare = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-current-user", "--keep-caps"])]
    if (
        shutil.which("unshare")
        and shutil.which("ip")
        and subprocess.run([*unshare, "ip", "link", "set", "lo", "up"], check=False).returncode == 0
    ):
        os.environ[INSIDE] = "1"
        os.execvp("unshare", [*unshare, sys.executable, "-m", *_module()])
    return False


def _module():
    return [sys.modules["__main__"].__spec__.name, *sys.argv[1:]]
