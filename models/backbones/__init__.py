"""Generators and discriminators the systems stand on: StyleGAN2, StyleGAN3 and their common
parts.
"""
