"""No name, redirect or DNS rebinding leads to a private address.

Tested in a network namespace with a public address and a hostile name server.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Runs in a namespace in which loopback also has a public address, and in which a name server
# answers some names with a different address each time.
LIARS = r"""
import json, socket, subprocess, sys, threading
from pathlib import Path

place = Path(sys.argv[1])
(place / "resolv.conf").write_text("nameserver 127.0.0.1\n")
for line in ("ip link set lo up", "ip addr add 8.8.8.8/32 dev lo", "ip addr add 10.0.0.1/32 dev lo",
             f"mount --bind {place}/resolv.conf /etc/resolv.conf"):
    subprocess.run(line.split(), check=True)

import paise2nb
from tests.site import Site, Visit
from tests.content.test_fetch import PRIVATE

Visit.protocol_version = "HTTP/1.0"  # each request resolves the name again

ADDRESSES = {
    "public": [["8.8.8.8"]], "inside": [["10.0.0.1"]], "both": [["8.8.8.8", "127.0.0.1"]],
    "rebinding": [["8.8.8.8"], ["127.0.0.1"]], "rebound": [["127.0.0.1"], ["8.8.8.8"]],
}
queries = dict.fromkeys(ADDRESSES, 0)

def answer_names(server):
    while True:
        query, client = server.recvfrom(512)
        end = query.index(b"\0", 12) + 5
        name, found = query[13:13 + query[12]].decode(), []
        if query[end - 4:end - 2] == b"\0\1" and name in ADDRESSES:
            found = ADDRESSES[name][queries[name] % len(ADDRESSES[name])]
            queries[name] += 1
        head = query[:2] + b"\x81\x80\0\1" + len(found).to_bytes(2, "big") + bytes(4)
        records = b"".join(b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(address)
                           for address in found)
        server.sendto(head + query[12:end] + records, client)

def count(listener):
    while True:
        listener.accept()[0].close()
        reached.append(listener.getsockname()[0])

reached = []
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind(("127.0.0.1", 53))
threading.Thread(target=answer_names, args=(names,), daemon=True).start()
with Site("8.8.8.8") as site:
    for family, address in ((2, "127.0.0.1"), (2, "10.0.0.1"), (10, "::1")):
        canary = socket.socket(family)
        canary.bind((address, site.port))
        canary.listen()
        threading.Thread(target=count, args=(canary,), daemon=True).start()
    hosts = [f"{name}.example" for name in ADDRESSES] * 4
    urls = [site.url(f"/ok?{n}", host) for n, host in enumerate(hosts)]
    away = [site.url("/ok", host) for host in [*PRIVATE, *hosts]]
    urls += [site.url(f"/to?url={there}%3F{n}", "public.example") for n, there in enumerate(away)]
    settings = {"workers.retry.max_retries": 0, "fetch.robots": False}
    with paise2nb.open("test", place / "data", settings) as app:
        jobs = app.enqueue_many("fetch", urls)
        ends = {}
        for job, host in zip(jobs, [*hosts, *[None] * len(away)]):
            ends.setdefault(str(host), set()).add(job.error_class or job.state)
print(json.dumps({"reached": reached, "ends": {host: sorted(e) for host, e in ends.items()}}))
"""


def has_namespaces() -> bool:
    """Whether a test can have its own network and mounts on this machine."""
    if not shutil.which("unshare") or not shutil.which("ip"):
        return False
    tried = subprocess.run(["unshare", "-n", "-m", "true"], capture_output=True, check=False)
    return tried.returncode == 0


@pytest.mark.skipif(not has_namespaces(), reason="machine: no network namespaces")
def test_no_name_redirect_or_rebinding_leads_to_a_private_address(tmp_path: Path) -> None:
    done = subprocess.run(
        ["unshare", "-n", "-m", sys.executable, "-c", LIARS, str(tmp_path)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["reached"] == []
    ends = found["ends"]
    assert ends["public.example"] == ["completed"]
    assert ends["inside.example"] == ends["both.example"] == ["blocked"]
    assert set(ends["rebinding.example"]) | set(ends["rebound.example"]) == {"blocked", "completed"}
    assert {"blocked", "completed"} <= set(ends["None"]) <= {"blocked", "completed", "dns"}
