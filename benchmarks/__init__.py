"""benchmarks: speed as ratios to literal implementations, measured side by side."""
