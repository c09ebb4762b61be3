"""A real PostgreSQL server for tests: found on PATH, in the folders of Linux, or in the wheel of pgserver."""

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

PASSWORD = "sesame-open"


def programs():
    """Folder of ``initdb`` and ``pg_ctl``; None when there is none."""
    on_path = shutil.which("initdb")
    wheel = importlib.util.find_spec("pgserver")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    folders += [Path(wheel.origin).parent / "pginstall" / "bin"] if wheel else []
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "pg_ctl").exists()), None)


@contextmanager
def server():
    """Start a server with user ``tuner`` and yield the URL of its database ``postgres``; raise OSError if it cannot."""
    found = programs()
    if found is None:
        raise OSError("PostgreSQL is not installed (nor the wheel pgserver)")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        who = _owner(Path(home))
        data, secret, log = (Path(home) / name for name in ("data", "password", "log"))
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        options = ["-U", "tuner", "-A", "scram-sha-256", "--pwfile", secret, "-E", "UTF8", "--locale=C", "--no-sync"]
        _run([found / "initdb", "-D", data, *options], **who)
        port = _free_port()
        settings = f"-p {port} -h 127.0.0.1 -k '' -F -c max_connections=40 -c shared_buffers=16MB"
        _run([found / "pg_ctl", "-D", data, "-l", log, "-w", "-t", "30", "-o", settings, "start"], **who)
        try:
            yield f"postgresql://tuner:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            _run([found / "pg_ctl", "-D", data, "-m", "immediate", "stop"], **who)


def _owner(home):
    """Who runs the server: PostgreSQL refuses to be run by root."""
    if os.geteuid():
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    name = "postgres" if "postgres" in names else "nobody"
    home.chmod(0o755)
    shutil.chown(home, name)
    return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}


def _run(command, **who):
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        cwd="/",
        text=True,
        timeout=60,
        **who,
    )
    if done.returncode:
        raise OSError(f"PostgreSQL does not start: {done.stderr.strip()[-300:]}")


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
