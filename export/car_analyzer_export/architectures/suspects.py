"""Says what a checkpoint looks like when it is no image classifier of the usual kind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

_OWN_CODE = "write a FILE.py:FACTORY that makes it"

# Searched for at the start of a name or behind a dot; the first that is found speaks.
_SUSPECTS = (
    (
        r"_packed_params|zero_point\b|weight_fake_quant|activation_post_process",
        "a quantised network; save the float one",
    ),
    (r"lora_[AB]\.|lora_(up|down)\.", "a LoRA adapter, not a whole network; merge it into its network first"),
    (r"weight_(ih|hh)_l\d", "a recurrent network (LSTM or GRU), for sequences"),
    (r"(rpn|roi_heads|mask_head|bbox_head|box_head|box_predictor|mask_predictor)\.", "a detector such as Mask R-CNN"),
    (r"(class_embed|bbox_embed|query_embed)\.", "a detector (DETR)"),
    (r"backbone\.body\.|head\.(classification|regression)_head\.", "a detector"),
    (r"\d+\.(cv\d|m\.\d+|dfl|anchors)\b", "a YOLO network; export it with the package it was trained with"),
    (r"(segmentation_head|aux_classifier|decode_head|mask_decoder)\.", "a segmentation network"),
    (r"(up\d|outc|upconv\d|decoder)\.", "a segmentation network (U-Net) or another with a decoder"),
    (r"(text_model|visual|vision_model|image_encoder)\.", "a network with image and text parts such as CLIP"),
    (r"(word_embeddings|token_embedding|embed_tokens|tok_embeddings|wte|embeddings?)\.weight", "a network for text"),
    (
        r"(patch_embeddings\.projection|embedder\.\w+|layernorm_before)\.",
        f"a Hugging Face transformers network; {_OWN_CODE}",
    ),
    (r"_conv_stem\.|_blocks\.\d+\._", f"an EfficientNet of the package efficientnet_pytorch; {_OWN_CODE}"),
    (r"(down_blocks|up_blocks|time_embed\w*)\.", "a diffusion model"),
)


def looks_like(weights: Mapping[str, torch.Tensor]) -> str | None:
    """Names the kind of network in a few words, if its names or shapes give it away."""
    for pattern, kind in _SUSPECTS:
        found = re.compile(rf"(?:^|\.)(?:{pattern})")
        name = next((name for name in weights if found.search(name)), None)
        if name:
            return f"{kind} ('{name}')"
    return _by_shape(weights)


def _by_shape(weights: Mapping[str, torch.Tensor]) -> str | None:
    dimensions = {tensor.ndim for tensor in weights.values()}
    kernels = {name: tensor for name, tensor in weights.items() if tensor.ndim >= 2}
    if not kernels:
        return "no network: nothing in it is a layer that computes"
    name, first = next(iter(kernels.items()))
    if 5 in dimensions:
        return f"a network for video or volumes ('{name}')"
    if 4 in dimensions:
        if first.ndim == 4 and first.shape[1] in (1, 2, 4):
            channels = "1 channel" if first.shape[1] == 1 else f"{first.shape[1]} channels"
            return f"a network for pictures of {channels}, where photos have 3 ('{name}')"
        return None
    if 3 in dimensions:
        return f"a network for sequences or signals ('{name}')"
    return f"a network for tables, with {first.shape[1]} numbers for each row ('{name}')"
