"""Faces as numbers: who somebody is (`traits`) and what the face does just now (`state`)."""
