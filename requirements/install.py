"""Make the environment of a checkout: ``python3 requirements/install.py .venv``. Called by make, safe side by side.

Written for old Pythons too, so that one of them can say that it is too old.
"""

import os
import subprocess
import sys

OLDEST = (3, 11)
HERE = os.path.dirname(os.path.abspath(__file__))
CHECKOUT = os.path.dirname(HERE)
LOCKED = [os.path.join(HERE, name) for name in ("dev.txt", "flights.txt")]
SOURCES = [*LOCKED, os.path.join(CHECKOUT, "pyproject.toml")]


def main(directory: str) -> None:
    check_python()
    os.makedirs(directory, exist_ok=True)
    import fcntl

    with open(os.path.join(directory, ".install.lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = os.path.join(directory, ".stamp")
        if not is_fresh(stamp):
            install(directory)
            open(stamp, "w").close()


def check_python() -> None:
    if sys.version_info < OLDEST:
        version = "{}.{}".format(*sys.version_info)
        sys.exit(
            f"paperboy needs Python 3.11 or newer, and {sys.executable} is {version}: "
            "name another one, as in `make PYTHON=python3.12 …`."
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        sys.exit(f"{sys.executable} lacks the venv module: install it (Debian, Ubuntu: apt install python3-venv).")


def is_fresh(stamp: str) -> bool:
    if not os.path.exists(stamp):
        return False
    made = os.path.getmtime(stamp)
    return all(os.path.getmtime(source) <= made for source in SOURCES)


def install(directory: str) -> None:
    print(f"Making the environment in {directory} (once, and again when requirements change).", flush=True)
    run(sys.executable, "-m", "venv", directory)
    locked, flights = LOCKED
    python = os.path.join(directory, "bin", "python")
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install")
    run(*pip, "--require-hashes", "-r", locked)
    from_source = ("--no-deps", "--no-build-isolation", "--use-pep517")
    run(*pip, *from_source, "--require-hashes", "-r", flights)
    run(*pip, *from_source, "--editable", CHECKOUT)


def run(*command: str) -> None:
    code = subprocess.call(command, stdin=subprocess.DEVNULL)
    if code != 0:
        sys.exit(f"This failed with code {code}: {' '.join(command)}")


if __name__ == "__main__":
    main(sys.argv[1])
