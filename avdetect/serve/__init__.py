"""`avdetect serve`: a page and a REST interface that score uploaded videos, one process each. Extra `serve`."""
