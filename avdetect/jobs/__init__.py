"""Machinery that knows nothing of scoring: a pool of workers, and rows that survive a kill.

process   one worker process: JSON through one pipe, and it dies with its parent
pool      items in, what became of them out, in any order: `Pool` on this machine
ray       the same pool on a Ray cluster: `RayPool`
store     rows in one SQLite file: `Store`
"""
