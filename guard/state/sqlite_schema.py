"""The tables behind `sqlite:`, and how a file of an older version becomes one of this.

* `counters` names each counter and numbers it; `spends` holds the two integers that change all the time, in narrow
  rows, so that a batch touches few pages; `digests` holds what distinct budgets have been paid for.
* `journal` has a row for each privacy charge and refund, oldest first, and only ever grows at its end; `checkpoints`
  holds what its oldest rows came to, by counter and event, once they have been folded away.
* `terms` holds what a ledger's privacy budgets are kept under, `memo` the remembered releases.
* `records` holds what is known of each client, packed (`guard.state.tally`): one row is read and written anew with each
  merge, which costs less than a row for each count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guard.errors import StateError

if TYPE_CHECKING:
    import sqlite3

APPLICATION_ID = 0x67756172  # "guar"
SCHEMA_VERSION = 3
PRIVACY_VERSION = 2
"""The first that has terms, journals and releases."""

_COUNTERS = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('schema_version', 1), ('pings', 0);
CREATE TABLE counters (
    id INTEGER PRIMARY KEY, ledger TEXT NOT NULL, budget TEXT NOT NULL, scope TEXT NOT NULL,
    window_s INTEGER NOT NULL, window INTEGER NOT NULL, forgotten_after_s INTEGER,
    UNIQUE (ledger, budget, scope, window_s, window));
CREATE INDEX counters_forgotten ON counters (forgotten_after_s) WHERE forgotten_after_s IS NOT NULL;
CREATE TABLE spends (counter INTEGER PRIMARY KEY, spent INTEGER NOT NULL, total INTEGER NOT NULL);
CREATE TABLE digests (counter INTEGER NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (counter, digest)) WITHOUT ROWID;
"""
_PRIVACY = """
CREATE TABLE terms (ledger TEXT PRIMARY KEY, terms BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE journal (
    id INTEGER PRIMARY KEY, counter INTEGER NOT NULL, event TEXT NOT NULL, rows INTEGER NOT NULL,
    amount INTEGER NOT NULL);
CREATE TABLE checkpoints (
    counter INTEGER NOT NULL, event TEXT NOT NULL, rows INTEGER NOT NULL, amount INTEGER NOT NULL,
    PRIMARY KEY (counter, event)) WITHOUT ROWID;
CREATE TABLE memo (ledger TEXT NOT NULL, slot INTEGER NOT NULL, held BLOB NOT NULL, UNIQUE (ledger, slot));
UPDATE meta SET value = 2 WHERE name = 'schema_version';
"""
_RECORDS = """
CREATE TABLE records (
    space TEXT NOT NULL, key TEXT NOT NULL, forgotten_after_s INTEGER NOT NULL, held BLOB NOT NULL,
    UNIQUE (space, key));
CREATE INDEX records_forgotten ON records (forgotten_after_s);
UPDATE meta SET value = 3 WHERE name = 'schema_version';
"""


def version_of(db: sqlite3.Connection, path: str) -> int:
    """Return a file's schema version; 0 for one without tables.

    Raises:
        StateError: the file is another program's, or of a version that this guard does not know.
    """
    (application_id,) = db.execute("PRAGMA application_id").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application_id != APPLICATION_ID and (application_id or tables):
        raise StateError(f"{path} is not a ledger of guard's: it belongs to another program")
    if not tables:
        return 0
    row = db.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone()
    version = 0 if row is None else int(row[0])
    if not 1 <= version <= SCHEMA_VERSION:
        raise StateError(f"{path} has schema version {version}; this guard reads version {SCHEMA_VERSION}")
    return version


def prepare(db: sqlite3.Connection, path: str) -> None:
    """Make the tables that a file does not have yet; a ledger of an older version keeps everything that is in it.

    Raises:
        StateError: as `version_of`.
    """
    version = version_of(db, path)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA journal_size_limit = 67108864")
    missing = [_COUNTERS, _PRIVACY, _RECORDS][version:]
    if missing:
        db.executescript(f"BEGIN IMMEDIATE; PRAGMA application_id = {APPLICATION_ID}; {''.join(missing)} COMMIT;")
