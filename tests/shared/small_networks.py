"""What makes shipped networks small: of the same kind, without a download."""

from __future__ import annotations

from typing import Any

# The beginning of an encoder's name -> the smallest of its kind.
ENCODERS: dict[str, dict[str, Any]] = {
    "tu-maxvit": {
        "encoder": "tu-test_maxvit",
        "encoder_options": {"img_size": 64},
        "size": [64, 128],
    },
    "tu-swin": {
        "encoder": "tu-swin_tiny_patch4_window7_224",
        "encoder_options": {
            "strict_img_size": False,
            **{"embed_dim": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]},
        },
    },
    "tu-convnext": {"encoder": "tu-test_convnext"},
    "tu-vit": {
        "encoder": "tu-vit_small_patch16_dinov3",
        "encoder_options": {"dynamic_img_size": True, "embed_dim": 48, "depth": 6, "num_heads": 2},
    },
    "tu-beit": {
        "encoder": "tu-beit_base_patch16_224",
        "encoder_options": {"img_size": 64, "embed_dim": 16, "depth": 6, "num_heads": 2},
        "size": [64, 64],
    },
    "tu-sam2": {
        "encoder": "tu-sam2_hiera_tiny",
        "encoder_options": {"embed_dim": 16, "stages": [1, 1, 2, 1], "global_att_blocks": [3]},
    },
    "tu-hrnet": {"encoder": "tu-hrnet_w18_small"},
    "tu-tf_efficientnet": {"encoder": "tu-test_efficientnet"},
    "tu-mobilenet": {},
    "efficientnet": {"encoder": "efficientnet-b0"},
    "mit_b": {"encoder": "mit_b0"},
    "resn": {"encoder": "resnet18"},
}
BACKBONES: dict[str, dict[str, Any]] = {
    "swin": {"embed_dim": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4},
    "convnext": {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1]},
}
TRANSFORMER = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
SEGFORMER = {
    "hidden_sizes": [8, 16, 16, 16],
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 2, 2, 2],
    "decoder_hidden_size": 16,
}


# Network -> what makes it small.
NETS: dict[str, dict[str, Any]] = {
    "unet3plus": {"width": 4, "own_width": 4},
    "resunet_a": {"width": 4},
    "swin_unet": {"depths": [1, 1, 2], "head_width": 8, "window": 4},
    "effisegnet": {"width": 8},
    "resunet_plus_plus": {"width": 8},
    "ocr": {"width": 16, "key_width": 8},
    "sam2_unet": {"width": 8},
    "lawin": {"width": 128, "embedding": 16},
    "upernet": {"width": 16, "auxiliary_width": 8},
    "knet": {"width": 16, "feedforward": 32},
    "maxvit_unet": {"depths": [1, 1, 1]},
    "semask": {"width": 16},
}


def shrink(family: str, raw: dict[str, Any]) -> dict[str, Any]:
    """Return what makes a config's network small, of the same kind and without a download."""
    if family == "smp":
        small = _shrink_encoder(raw)
        if raw["architecture"] == "dpt":
            # A word that smp's encoder of it has for itself.
            del (options := dict(small["encoder_options"]))["depth"]
            small = {**small, "encoder_options": options}
        return small
    if family == "nets":
        options = {**raw.get("options", {}), **NETS[raw["architecture"]]}
        return {"options": options, **(_shrink_encoder(raw) if raw.get("encoder") else {})}
    if family == "segformer":
        return {"network": SEGFORMER}
    if family == "torchvision":
        return {"architecture": "deeplabv3_mobilenet_v3_large", "pretrained": None}
    if family == "monai":
        small = {"feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
        return {**small, "size": [100, 120], "window": [64, 96], "focus": {"shared": 0.25}}
    assert family == "huggingface", f"{family}: say here what makes its networks small"
    return {"pretrained": None, "channels": 1, "network": _shrink_transformer(raw)}


def _shrink_encoder(raw: dict[str, Any]) -> dict[str, Any]:
    small = [v for k, v in ENCODERS.items() if raw["encoder"].startswith(k)]
    assert small, f"{raw['encoder']}: add the smallest of its kind to ENCODERS"
    return {"encoder_weights": None, **small[0]}


def _shrink_transformer(raw: dict[str, Any]) -> dict[str, Any]:
    if raw["architecture"] == "upernet":
        kind = raw["network"]["backbone_config"]["model_type"]
        heads = {"hidden_size": 8, "auxiliary_channels": 8}
        return {**heads, "backbone_config": {"model_type": kind, **BACKBONES[kind]}}
    if raw["architecture"] == "beit":
        return {**TRANSFORMER, "out_indices": [1, 2, 3, 4], "use_relative_position_bias": True}
    sizes = {"neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8}
    return {**TRANSFORMER, **sizes, "backbone_out_indices": [0, 1, 2, 3]}
