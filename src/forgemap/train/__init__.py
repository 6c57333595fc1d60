"""train: losses and the training loops; nothing that analyses a picture imports it."""
