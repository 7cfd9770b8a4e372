"""A step that trains an epoch a turn, after those that are there, in a process of its own."""

import os
import subprocess
import sys

STOP = "TOY_STOPS_AFTER"
"""Variable: the epoch after which the process fails."""
# Says what it reads, and where.
TRAINING = """
import os, sys, time
from pathlib import Path
data, out, epochs, pause = sys.argv[1:]
said = Path(data, "image.txt").read_text()
run = Path(out)
run.mkdir(parents=True, exist_ok=True)
(run / "cache").mkdir(exist_ok=True)
(run / "cache" / "decoded").write_text("large")
file = run / "last.ckpt"
done = int(file.read_text()) if file.is_file() else 0
for epoch in range(done + 1, int(epochs) + 1):
    print(f"epoch {epoch} of {said}", flush=True)
    (run / "new").write_text(str(epoch))
    (run / "new").rename(file)
    if os.environ.get("TOY_STOPS_AFTER") == str(epoch):
        sys.exit("it broke")
    time.sleep(float(pause))
(run / "weights").write_text(f"{said} {epochs}")
"""


def start_training(command, stream, environment, folder=None):
    """Start the training, as `zoo.pipeline.execution.start_process` starts a command."""
    return subprocess.Popen(
        [sys.executable, "-c", TRAINING, *map(os.fspath, command)],
        cwd=folder,
        stdout=stream,
        stderr=stream,
        env=environment,
        start_new_session=True,
    )
