"""Correspondences between two pictures: dense features, matches of points, pose and its alignment at test time."""
