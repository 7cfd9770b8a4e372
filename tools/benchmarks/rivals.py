"""What `bench.py` compares with: other libraries doing the same job, each in its own process.

    python tools/benchmarks/rivals.py LIBRARY JOB COCO_FOLDER OUT
    python tools/benchmarks/rivals.py read TREE json|zoo

Each function is what the library's documentation shows for the job. The annotations' file of a COCO
folder is `annotations/instances_train.json`, its images lie in `images/train`. This file imports
nothing of ours but where it reads with `zoo`, so that it runs in an environment of the library's.
"""

import json
import sys
from pathlib import Path

ANNOTATIONS, IMAGES = "annotations/instances_train.json", "images/train"


def supervision_yolo(source: Path, out: Path) -> None:
    _supervision(source).as_yolo(
        annotations_directory_path=str(out / "labels"), data_yaml_path=str(out / "data.yaml")
    )


def supervision_coco(source: Path, out: Path) -> None:
    _supervision(source).as_coco(annotations_path=str(out / "annotations.json"))


def _supervision(source: Path):  # noqa: ANN202
    import supervision

    return supervision.DetectionDataset.from_coco(
        images_directory_path=str(source / IMAGES), annotations_path=str(source / ANNOTATIONS)
    )


def pycocotools_masks(source: Path, out: Path) -> None:
    import cv2
    from pycocotools.coco import COCO

    coco = COCO(str(source / ANNOTATIONS))
    for image in coco.imgs.values():
        folder = out / Path(image["file_name"]).stem
        folder.mkdir(parents=True)
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
            name = coco.cats[annotation["category_id"]]["name"]
            cv2.imwrite(str(folder / f"{name}.png"), coco.annToMask(annotation) * 255)


def pycocotools_rle(source: Path, out: Path) -> None:
    from pycocotools import mask
    from pycocotools.coco import COCO

    coco = COCO(str(source / ANNOTATIONS))
    annotations = []
    for image in coco.imgs:
        for annotation in coco.loadAnns(coco.getAnnIds(image)):
            code = coco.annToRLE(annotation)
            area, box = float(mask.area(code)), mask.toBbox(code).tolist()
            text = {"size": code["size"], "counts": code["counts"].decode("ascii")}
            annotations.append({**annotation, "segmentation": text, "area": area, "bbox": box})
    record = {**coco.dataset, "annotations": annotations}
    out.mkdir(parents=True)
    (out / "annotations.json").write_text(json.dumps(record))


def datumaro_coco(source: Path, out: Path) -> None:
    _datumaro(source).export(str(out), "coco_instances", save_media=False)


def datumaro_datumaro(source: Path, out: Path) -> None:
    _datumaro(source).export(str(out), "datumaro", save_media=False)


def _datumaro(source: Path):  # noqa: ANN202
    from datumaro import Dataset

    return Dataset.import_from(str(source), "coco_instances")


def read(source: Path, how: str) -> None:
    if how == "json":
        for path in sorted((source / "train" / "outputs_json").glob("*/*.json")):
            json.loads(path.read_bytes())
        return
    import converters
    from converters.types import LabelSpace

    converters.read(source, labels=LabelSpace.load("hand_bones"))


if __name__ == "__main__":
    library, *rest = sys.argv[1:]
    if library == "read":
        read(Path(rest[0]), rest[1])
    else:
        globals()[f"{library}_{rest[0]}"](Path(rest[1]), Path(rest[2]))
