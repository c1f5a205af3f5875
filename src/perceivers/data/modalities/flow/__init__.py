"""Optical flow and the frame pairs it connects."""
