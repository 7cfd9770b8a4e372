"""Benchmarks: our commands beside the usual way and the best library that does it, in one run.

python tools/bench.py convert [--images 800] [--datumaro-python VENV/bin/python]
python tools/bench.py audit
"""

import bench_audit
import bench_convert
import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
app.command("convert")(bench_convert.run)
app.command("audit")(bench_audit.run)

if __name__ == "__main__":
    app()
