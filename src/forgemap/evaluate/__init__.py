"""evaluate: how well a model finds and locates edits; measured, with intervals, never pooled only."""
