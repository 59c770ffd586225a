"""Many files: where their names come from, the processes that score them, the journal that survives a kill, the tables.

sources   names of files: arguments, folders, patterns, a manifest, a list on standard input
engine    what scores work items, in any order: `ProcessEngine` on this machine (pool), `RayEngine` on a cluster
          (ray_engine); what both do alike (crew, worker)
journal   every result, on disk as soon as it is known
run       from names through an engine into the journal, and from there in order into the tables
tables    CSV, JSON Lines, JSON, Parquet, and the submission file of Kaggle's DFDC
"""
