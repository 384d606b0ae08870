"""The queue with an instant engine: `python bench/queue.py [--quick] [--json]`. What is measured stands in `bench.ward.speed`."""

import sys

sys.path[0] = __file__.rpartition("/bench/")[
    0
]  # this file's own folder would hide the standard library's `queue` behind this file

from bench.ward.speed import main  # noqa: E402

if __name__ == "__main__":
    main()
