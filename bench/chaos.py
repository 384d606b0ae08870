"""Faults, and what they broke: `python bench/chaos.py [--quick] [--json] [--seed N]`. What is done and checked stands in `bench.ward.chaos`."""

import sys

sys.path[0] = __file__.rpartition("/bench/")[
    0
]  # this file's own folder would hide the standard library's `queue` behind a file of ours

from bench.ward.chaos import main  # noqa: E402

if __name__ == "__main__":
    main()
