"""Describes what a checkpoint looks like if it is not an image classifier of the usual kind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

_OWN_CODE = "write a FILE.py:FACTORY that builds it"
_IF_PHOTOS = f"if it takes photos, {_OWN_CODE}"
_RECURRENT = re.compile(r"(^|\.)weight_(ih|hh)(_l\d|$)")
_WORDS = re.compile(r"(^|\.)(word_embeddings|token_embedding|embed_tokens|tok_embeddings|wte|embeddings?)\.weight$")
_ATTENTION = re.compile(
    r"(^|[._])(attn|attention|self_attn|self_attention|qkv|to_q|q_proj|in_proj_weight|query)([._]|$)"
)

# Patterns at the start of a name or behind a dot; the first match counts.
_SUSPECTS = (
    (
        r"_packed_params|zero_point\b|weight_fake_quant|activation_post_process",
        "a quantised network; save the float one",
    ),
    (r"lora_[AB]\.|lora_(up|down)\.", "a LoRA adapter, not a whole network; merge it into its network first"),
    (r"(rpn|roi_heads|mask_head|bbox_head|box_head|box_predictor|mask_predictor)\.", "a detector such as Mask R-CNN"),
    (r"(class_embed|bbox_embed|query_embed)\.", "a detector (DETR)"),
    (r"backbone\.body\.|head\.(classification|regression)_head\.", "a detector"),
    (r"\d+\.(cv\d|m\.\d+|dfl|anchors)\b", "a YOLO network; export it with the package it was trained with"),
    (r"(segmentation_head|aux_classifier|decode_head|mask_decoder)\.", "a segmentation network"),
    (r"(up\d|outc|upconv\d|decoder)\.", "a segmentation network (U-Net) or another with a decoder"),
    (r"(text_model|visual|vision_model|image_encoder)\.", "a network with image and text parts such as CLIP"),
    (
        r"(patch_embeddings\.projection|embedder\.\w+|layernorm_before)\.",
        f"a Hugging Face transformers network; {_OWN_CODE}",
    ),
    (r"_conv_stem\.|_blocks\.\d+\._", f"an EfficientNet of the package efficientnet_pytorch; {_OWN_CODE}"),
    (r"(down_blocks|up_blocks|time_embed\w*)\.", "a diffusion model"),
)


def looks_like(weights: Mapping[str, torch.Tensor]) -> str | None:
    """Names the kind of network in a few words, if names or shapes show it."""
    for pattern, kind in _SUSPECTS:
        found = re.compile(rf"(?:^|\.)(?:{pattern})")
        name = next((name for name in weights if found.search(name)), None)
        if name:
            return f"{kind} ('{name}')"
    return _by_shape(weights)


def _by_shape(weights: Mapping[str, torch.Tensor]) -> str | None:
    # weight_norm writes a scale with as many dimensions as the weights, all 1 but the first.
    kernels = {name: tensor for name, tensor in weights.items() if tensor.ndim >= 2 and tensor[:1].numel() > 1}
    if not kernels:
        return "no network: it has no layer that computes"
    if name := _first(kernels, lambda kernel: kernel.ndim == 5):
        return f"a network for video or volumes ('{name}')"
    if name := _first(kernels, lambda kernel: kernel.ndim == 4):
        return _by_channels(name, kernels)
    if name := next(filter(_RECURRENT.search, weights), None):
        return f"a recurrent network (LSTM or GRU), for sequences ('{name}')"
    # A Linear layer of the same name has a bias.
    words = (name for name in weights if _WORDS.search(name) and f"{name.removesuffix('weight')}bias" not in weights)
    if name := next(words, None):
        return f"a network for text ('{name}')"
    if name := next(filter(_ATTENTION.search, weights), None):
        return f"a transformer of another library ('{name}'); {_IF_PHOTOS}"
    if name := _first(kernels, lambda kernel: kernel.ndim == 3):
        return f"a network for sequences or signals ('{name}'); {_IF_PHOTOS}"
    name = next(iter(kernels))
    return f"a network for tables ('{name}' is {list(kernels[name].shape)}); {_IF_PHOTOS}"


def _by_channels(name: str, kernels: Mapping[str, torch.Tensor]) -> str | None:
    """Names the pictures that the first convolution takes, unless they are photos or it does not show."""
    outputs, channels = kernels[name].shape[:2]
    # A depthwise layer has one input a group, and a photo three groups.
    may_be_depthwise = channels == 1 and outputs % 3 == 0
    takes_photos = any(kernel.ndim == 4 and kernel.shape[1] == 3 for kernel in kernels.values())
    comes_first = name == next(iter(kernels))
    if channels not in (1, 2, 4) or may_be_depthwise or takes_photos or not comes_first:
        return None
    said = "1 channel" if channels == 1 else f"{channels} channels"
    return f"a network for pictures of {said}, where photos have 3 ('{name}')"


def _first(kernels: Mapping[str, torch.Tensor], fits: Callable[[torch.Tensor], bool]) -> str | None:
    return next((name for name, kernel in kernels.items() if fits(kernel)), None)
