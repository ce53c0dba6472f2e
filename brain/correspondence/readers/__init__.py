"""Public data sets with keypoints, read from the folders they come in."""
