"""catalog: published data sets by name -> records.

records = open_data("edited")                    # a manifest, or a folder that holds one
records = open_data("columbia:/data/Columbia")   # a published set where it lies
records = open_data("dolos/lama:/data/dolos")    # one method of it, with the untouched pictures
"""

from .check import Check, check
from .sets import SETS, digest_of, open_data, read_set, root_of

__all__ = ["SETS", "Check", "check", "digest_of", "open_data", "read_set", "root_of"]
