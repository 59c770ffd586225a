"""Many files: where their names come from, the processes that score them, the journal that survives a kill, the tables.

sources   names of files: arguments, folders, patterns, a manifest, a list on standard input
journal   every result, on disk as soon as it is known
run       from names through a pool of workers (avdetect.jobs) into the journal, and from there in order into the tables
tables    CSV, JSON Lines, JSON, Parquet, and the submission file of Kaggle's DFDC
"""
