"""A database behind any ODBC driver (InterSystems Caché and IRIS, and what else has no driver of its own), by the SQL that all of them share.

Imported by SQLAlchemy for addresses `odbc://…` only, since it needs the system's ODBC driver manager. Written for reading: it can insert nothing.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.connectors.pyodbc import PyODBCConnector
from sqlalchemy.engine.default import DefaultDialect


class GenericOdbc(PyODBCConnector, DefaultDialect):
    """`odbc://user@DSN` or `odbc://?odbc_connect=DRIVER%3D…`; the driver manager knows the rest."""

    name = "odbc"
    supports_statement_cache = True
    pyodbc_driver_name = None

    def _get_server_version_info(self, connection: sa.Connection) -> tuple[int | str, ...]:
        return ()

    def initialize(self, connection: sa.Connection) -> None:
        """Asks nothing of the server: each has its own questions."""

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        """Leaves the driver's own level."""
