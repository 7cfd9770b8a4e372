"""Benchmarks: our commands beside the usual way and the best library that does it, in one run.

python tools/bench.py convert [--images 800] [--datumaro-python VENV/bin/python]
python tools/bench.py audit
python tools/bench.py loader
python tools/bench.py train
python tools/bench.py rle [--network net1024a]
python tools/bench.py fuse [--out FOLDER]
python tools/bench.py metrics
python tools/bench.py flags
"""

import bench_audit
import bench_convert
import bench_flags
import bench_fuse
import bench_loader
import bench_metrics
import bench_rle
import bench_train
import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
app.command("convert")(bench_convert.run)
app.command("audit")(bench_audit.run)
app.command("loader")(bench_loader.run)
app.command("train")(bench_train.run)
app.command("rle")(bench_rle.run)
app.command("fuse")(bench_fuse.run)
app.command("metrics")(bench_metrics.run)
app.command("flags")(bench_flags.run)

if __name__ == "__main__":
    app()
