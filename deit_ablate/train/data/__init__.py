"""Data sets, their images, and the batches that a training sees."""
