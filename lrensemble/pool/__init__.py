"""The pool: a directory of trained members that survives crashes, full disks, damage and strangers.

``pool.h5`` holds what all members share (classes, labels, fingerprint of the data), ``members/<id>.h5`` what each
network says about each split; the written contract is ``docs/pool-format.md``.
"""

from __future__ import annotations

from lrensemble.pool.arrays import import_arrays, load_array
from lrensemble.pool.member import Member, MemberSummary, check_name, member_id
from lrensemble.pool.pool import Pool
from lrensemble.pool.problems import Problem
from lrensemble.pool.stopped import Stopped

__all__ = [
    "Member",
    "MemberSummary",
    "Pool",
    "Problem",
    "Stopped",
    "check_name",
    "import_arrays",
    "load_array",
    "member_id",
]
