"""Pseudo-fakes made from real media, reproducible from a random generator."""
