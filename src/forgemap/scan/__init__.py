"""scan: millions of pictures judged, resumably; on one machine or on a Ray cluster.

sources.py     what was named -> entries: files, tar shards, Parquet files
manifests.py   lists of pictures; containers.py: the pictures in tar shards and Parquet files
addresses.py   local paths and remote addresses alike
listing.py     the entries of a run, frozen on disk and divided into units
items.py       one unit -> its pictures, one after the other
decoders.py    processes that decode, apart from the run that they may not end
reader.py      units -> decoded pictures, ahead of the network
pipeline.py    pictures -> batches -> rows
parts.py       rows -> Parquet files that appear whole; which of them are there
results.py     the folder of a run: its journal, its lock, what it refuses
run.py         all of it on one machine; cluster.py: on Ray
summary.py     what a run found
"""

from .run import Outcome, scan
from .settings import Settings

__all__ = ["Outcome", "Settings", "scan"]
