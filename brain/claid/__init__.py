"""CLAID: class-agnostic regions of an image, found by bisecting its patch tokens, and search by them."""
