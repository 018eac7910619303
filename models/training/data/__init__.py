"""Clips for training: folders and zips of frames, video files, and whoever else makes them."""
