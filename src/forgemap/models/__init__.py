"""Networks: images (B, 3, H, W) -> mask logits (B, 1, H, W); `build.py` lists them by name."""
