"""Reading a hospital, beside dlt and beside COPY: `python bench/ingest.py [--quick] [--json] [--server URL]`. What is measured stands in
`bench.reading.compare`."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # this file's own folder would hide the package `ingest` behind this file

from bench.reading.compare import main  # noqa: E402

if __name__ == "__main__":
    main()
