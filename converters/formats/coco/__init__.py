"""COCO: reading, writing, and the pixels that pycocotools makes of a polygon."""
