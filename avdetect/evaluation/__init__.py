"""What a model can do, measured by group, with intervals. Needs the extra `evaluate`."""
