"""No command reaches for the network: every connection attempt of the real processes is watched with strace.

Name look-ups count. Loopback counts as home only where the local workspace listens, since a resolver may sit there too.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from storage import company

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("strace") is None, reason="no strace here: apt-get install strace"),
]
COMMAND = str(Path(sys.executable).parent / "nightshift")
WATCHED = "trace=connect,sendto,sendmsg,sendmmsg"
CALL = re.compile(
    r"(?P<call>connect|sendto|sendmsg|sendmmsg)\(.*?sa_family=AF_INET6?, sin6?_port=htons\((?P<port>\d+)\)"
    r".*?\"(?P<host>[0-9a-f.:]+)\""
)
DNS = 53
LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")


def attempts(log: str) -> set[tuple[str, int]]:
    """Host and port of every attempt to reach another socket by the internet protocols."""
    return {(found["host"], int(found["port"])) for found in CALL.finditer(log)}


def traced(log: Path, home: Path, *arguments: object) -> list[str]:
    """The command line that notes every attempt of one of our commands, its threads and its children."""
    watch = ["strace", "-f", "--seccomp-bpf", "-qq", "-s", "64", "-e", WATCHED, "-e", "signal=none", "-o", str(log)]
    return [*watch, COMMAND, "--home", str(home), *map(str, arguments)]


def bare(home: Path, **more: str) -> dict[str, str]:
    """An environment with nothing in it: the product itself must set what keeps its libraries quiet."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), **more}


def watched(log: Path, home: Path, *arguments: object, codes: Sequence[int] = (0,), **more: str) -> str:
    """Run a command that must end with one of these codes; returns the log of its attempts."""
    command = traced(log, home, *arguments)
    done = subprocess.run(
        command, env=bare(log.parent, **more), capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode in codes, done.stderr[-2000:]
    return log.read_text(errors="replace")


def outside(found: set[tuple[str, int]], own: Sequence[int] = ()) -> set[tuple[str, int]]:
    """What is not the local workspace."""
    return {(host, port) for host, port in found if not (host in LOOPBACK and port in own)}


def test_the_reader_of_the_log_sees_connections_and_look_ups() -> None:
    log = (
        '7 connect(5, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("52.1.2.3")}, 16) = -1\n'
        '7 connect(5, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110) = -1 ENOENT\n'
        "8 connect(6, {sa_family=AF_INET6, sin6_port=htons(443), sin6_flowinfo=htonl(0), "
        'inet_pton(AF_INET6, "2600::1", &sin6_addr), sin6_scope_id=0}, 28) = -1\n'
        '9 sendto(4, "..", 34, MSG_NOSIGNAL, {sa_family=AF_INET, sin_port=htons(53), '
        'sin_addr=inet_addr("127.0.0.53")}, 16) = 34\n'
    )
    assert attempts(log) == {("52.1.2.3", 443), ("2600::1", 443), ("127.0.0.53", DNS)}
    assert outside({("127.0.0.1", 8765), ("127.0.0.53", DNS), ("1.2.3.4", 8765)}, [8765]) == {
        ("127.0.0.53", DNS), ("1.2.3.4", 8765),
    }  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("network") / "home"


@pytest.mark.faults
def test_ingest_ask_and_doctor_reach_for_nothing(home: Path, tmp_path: Path) -> None:
    page = company.pages() / "leave.md"
    for arguments in (("ingest", page), ("ask", "How many days of leave do I have?"), ("doctor",)):
        codes = (0, 1) if arguments[0] == "doctor" else (0,)  # a small machine is no fault here
        log = watched(tmp_path / "log", home, *arguments, "--json", codes=codes)
        assert attempts(log) == set(), arguments


def test_a_hub_model_that_is_named_is_looked_up_and_nothing_else(home: Path, tmp_path: Path) -> None:
    """The counter-test: where a download was asked for, the same watch sees the attempt."""
    log = watched(
        tmp_path / "log", tmp_path / "fresh", "ask", "Anything?", "--json", codes=(1,),
        NIGHTSHIFT_BASE_MODEL="somebody/some-model", HF_ENDPOINT="http://127.0.0.1:9",
    )  # fmt: skip
    assert ("127.0.0.1", 9) in attempts(log)
    assert outside(attempts(log), [9]) == set()


@pytest.mark.faults
def test_the_demo_talks_to_its_own_workspace_and_to_nobody_else(home: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command, given = traced(log, home, "demo", "--port", 0), bare(tmp_path)
    with subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as demo:
        assert demo.stdout is not None
        url = demo.stdout.readline().decode().strip()
        time.sleep(2)
        child = int(Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()[0])
        subprocess.run(["kill", f"-{signal.SIGTERM.value}", str(child)], check=True)
        demo.wait(60)
    port = int(url.rstrip("/").rpartition(":")[2])
    found = attempts(log.read_text(errors="replace"))
    assert ("127.0.0.1", port) in found, "the watch sees what the bot does"
    assert outside(found, [port]) == set()
