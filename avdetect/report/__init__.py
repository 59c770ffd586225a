"""Detections for people (text, table) and for programs (JSON, CSV)."""
