"""data: records of pictures and masks, and the readers that make them; it knows no models."""
