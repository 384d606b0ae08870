"""The worklist process: the HTTP door, the page and their health, as one FastAPI application under uvicorn.

Holds no state of its own beyond who listens; any number of these may run beside each other.
"""

import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import sqlalchemy as sa
import uvicorn
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.staticfiles import StaticFiles

from core import db, embedded, logs, queue, schema, vocabulary
from core.errors import ValuerError
from core.identity import Keyring
from core.processes import Presence
from core.settings import WorklistSettings
from worklist import api, case_page, failures, health, list_page, sign_in_page
from worklist.connections import Connection
from worklist.desk import Desk
from worklist.guard import Guard
from worklist.metrics import Metrics
from worklist.rendering import STATIC
from worklist.watch import Watch

DESCRIPTION = 'Accepts findings, gives drafts, takes signatures. Every error is `{"error","detail"}`; another institution\'s id answers 404.'


def create_app(settings: WorklistSettings, engine: sa.Engine, keyring: Keyring) -> FastAPI:
    """The application over a migrated database. The caller owns the engine and has configured core.queue."""
    watch, metrics = Watch(engine), Metrics()
    metrics.watch_queue(engine)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        watch.close()

    app = FastAPI(
        title="ChatRadio-Valuer",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # Swagger's page loads its scripts from elsewhere; the document itself is at /openapi.json
        redoc_url=None,
        middleware=[Middleware(Guard, metrics=metrics, https=settings.cookie_secure)],
    )
    app.state.desk = Desk(settings, engine, keyring, watch)
    app.state.metrics = metrics
    failures.install(app)
    app.include_router(api.router)
    app.include_router(health.router)
    for page in (sign_in_page, list_page, case_page):
        app.include_router(page.router, include_in_schema=False)
    app.mount("/static", _KeptFiles(directory=STATIC))
    return app


class _KeptFiles(StaticFiles):
    """Static files that browsers may keep: their addresses carry a digest of their content."""

    def file_response(self, *args: object, **options: object) -> object:  # type: ignore[override]
        response = super().file_response(*args, **options)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


class Server(uvicorn.Server):
    """Lets long polls and streams go before it waits for connections to close."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.state.desk.watch.close()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def main() -> int:
    """Serves until SIGTERM or Ctrl-C. 1 says that it could not start."""
    settings = WorklistSettings()
    logs.configure(settings.log_level, "worklist")
    try:
        vocabulary.load(settings.home)
        servers = embedded.resolve(settings)
        queue.configure(servers.broker_url)
        engine = db.connect(servers.database_url, application="worklist")
        schema.require(engine)
        keyring = Keyring.load(settings.master_key_file)
    except ValuerError as error:
        logs.event("not_started", error=error)
        return 1
    presence = Presence(engine, "worklist", host=settings.host, port=settings.port).start()
    config = uvicorn.Config(
        create_app(settings, engine, keyring),
        host=settings.host,
        port=settings.port,
        http=Connection,
        access_log=False,  # ours (worklist.guard) holds no address, since addresses may carry an accession number or a link
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    server = Server(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(
            number, server.handle_exit
        )  # uvicorn raises them again when it has stopped; the row below has to go too
    try:
        presence.update("ready")
        server.run()
    finally:
        presence.stop()
        engine.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main())
