"""Benchmarks: our commands beside the usual way and the best library that does it, in one run.

python tools/bench.py convert [--images 800] [--datumaro-python VENV/bin/python]
python tools/bench.py audit
python tools/bench.py loader
python tools/bench.py train
python tools/bench.py rle [--network net1024a]
python tools/bench.py fuse [--out FOLDER]
python tools/bench.py fit [--images 72] [--sources 4] [--side 2048] [--work FOLDER]
python tools/bench.py metrics
python tools/bench.py flags
python tools/bench.py real DATA --out FOLDER [--group-by patients.csv:COLUMN] [--labels A,B]
    [--nnunet NN/bin/python]
python tools/bench.py families DATA --out FOLDER [--minutes 4]
python tools/bench.py curve DATA FOLDER/val/* --split FOLDER/split.json
python tools/bench.py export [--networks smp/laptop,smp/unet_resnet34]
python tools/bench.py serve FOLDER [--seconds 60] [--clients 4]
python tools/bench.py refiner DATA STORE ... --split SPLIT --out FOLDER [--only refiner,crops]
"""

import typer
from benchmarks import (
    audit,
    convert,
    curve,
    export,
    families,
    fit,
    flags,
    fuse,
    loader,
    metrics,
    real,
    refiner,
    rle,
    serve,
    train,
)

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
app.command("convert")(convert.run)
app.command("audit")(audit.run)
app.command("loader")(loader.run)
app.command("train")(train.run)
app.command("rle")(rle.run)
app.command("fuse")(fuse.run)
app.command("fit")(fit.run)
app.command("metrics")(metrics.run)
app.command("flags")(flags.run)
app.command("real")(real.run)
app.command("curve")(curve.run)
app.command("families")(families.run)
app.command("export")(export.run)
app.command("serve")(serve.run)
app.command("refiner")(refiner.run)

if __name__ == "__main__":
    app()
