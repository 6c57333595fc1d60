"""evaluate: how well a model finds and locates edits, with intervals, per method and overall."""
