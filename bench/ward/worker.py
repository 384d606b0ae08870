"""The product's drafting worker around the pretend engine: `python -m bench.ward.worker [SECONDS]`."""

import sys

from bench.ward.engine import BASE_DIGEST, Pretend
from core.settings import WorkerSettings
from worker import app
from worker.engine.protocol import Engine


def main() -> None:
    """Serves until it is told to stop; each answer takes SECONDS (default 0)."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0

    def opened(settings: WorkerSettings) -> tuple[Engine, str]:
        return Pretend(seconds), BASE_DIGEST

    app.serve(opened)


if __name__ == "__main__":
    main()
