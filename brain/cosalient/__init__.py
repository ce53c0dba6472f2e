"""What two images have in common, and whether it is the same object, even one without a rigid shape."""
