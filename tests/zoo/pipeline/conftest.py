"""Places that machines reach by a protocol: a folder, an SSH server, an S3 server."""

import secrets
import subprocess
import sys
from contextlib import contextmanager

import pytest

# Each says in a line how it is reached, and ends when nobody is left to hear it.
SSH_SERVER = """
import asyncio, sys, asyncssh
root, word = sys.argv[1:]
key = asyncssh.generate_private_key("ssh-ed25519")

class Server(asyncssh.SSHServer):
    def begin_auth(self, username):
        return True
    def password_auth_supported(self):
        return True
    def validate_password(self, username, password):
        return password == word

async def serve():
    server = await asyncssh.listen(
        "127.0.0.1", 0, server_factory=Server, server_host_keys=[key],
        sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=root.encode()),
    )
    print(server.get_port(), key.export_public_key().decode().strip(), flush=True)
    await asyncio.to_thread(sys.stdin.read)

asyncio.run(serve())
"""
S3_SERVER = """
import sys
from moto.server import ThreadedMotoServer
from contextlib import redirect_stdout
server = ThreadedMotoServer("127.0.0.1", 0)
with redirect_stdout(sys.stderr):
    server.start()
print(*server.get_host_and_port(), flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture
def folder_place(tmp_path):
    return f"file://{tmp_path}/place"


@pytest.fixture
def memory_place():
    """Return a URL in this process's own memory."""
    return f"memory://{secrets.token_hex(4)}/place"


@contextmanager
def serving(script, *words):
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        yield process.stdout.readline().strip()
        process.stdin.close()


@pytest.fixture(scope="session")
def ssh_answering(tmp_path_factory):
    pytest.importorskip("paramiko")
    pytest.importorskip("asyncssh")
    root, home = tmp_path_factory.mktemp("served"), tmp_path_factory.mktemp("home")
    word = secrets.token_hex(8)
    with serving(SSH_SERVER, root, word) as told:
        port, _, key = told.partition(" ")
        (home / ".ssh").mkdir(mode=0o700)
        known = home / ".ssh" / "known_hosts"
        known.write_text(f"[127.0.0.1]:{port} {key}\n", encoding="utf-8")
        yield f"sftp://someone:{word}@127.0.0.1:{port}", root, home


@pytest.fixture
def ssh_server(ssh_answering, monkeypatch):
    """Return a URL on an SSH server that knows a password, and the folder there."""
    url, root, home = ssh_answering
    monkeypatch.setenv("HOME", str(home))
    name = secrets.token_hex(4)
    return f"{url}/{name}", root / name


@pytest.fixture(scope="session")
def s3_answering():
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    with serving(S3_SERVER) as told:
        host, _, port = told.partition(" ")
        yield f"http://{host}:{port}"


@pytest.fixture
def s3_server(s3_answering, monkeypatch):
    """Return a URL in a bucket on an S3 server."""
    boto3 = pytest.importorskip("boto3")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_answering)
    name = f"place-{secrets.token_hex(4)}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}/runs"


@pytest.fixture
def of_our_own(monkeypatch):
    """Clusters that are started in the test take nobody else's work, and a thread a step."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
