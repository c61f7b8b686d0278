"""OpenCLIP's configuration, open_clip_config.json: what it decides beyond the weights of an image tower."""

from __future__ import annotations

from typing import Any

from sslcourse.weights.reading import OPEN_CLIP

HEAD_WIDTH = 64  # of its own vision transformers, where the configuration doesn't say


def activation(config: dict[str, Any]) -> str | None:
    """The activation of the blocks; None without a configuration of OpenCLIP's."""
    return None if not _model(config) else "quick-gelu" if _model(config).get("quick_gelu") is True else "gelu"


def heads(config: dict[str, Any], width: int) -> int | None:
    """Attention heads of an image tower of this width; None without a configuration, and for towers of timm's."""
    tower = _model(config).get("vision_cfg")
    if not isinstance(tower, dict) or "timm_model_name" in tower:
        return None
    narrow = tower.get("head_width", HEAD_WIDTH)
    return width // narrow if isinstance(narrow, int) and not isinstance(narrow, bool) and 0 < narrow <= width else None


def preprocessing(config: dict[str, Any]) -> dict[str, Any]:
    """mean and std, where the configuration says them; its default is OpenAI's."""
    return config.get(OPEN_CLIP, {}).get("preprocess_cfg", {})


def _model(config: dict[str, Any]) -> dict[str, Any]:
    return config.get(OPEN_CLIP, {}).get("model_cfg", {})
