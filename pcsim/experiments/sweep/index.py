"""The index of a study: one row a run, in one SQLite file that changes by whole transactions only.

Only the process that conducts the sweep writes to it, so it may lie on a network file system; anybody may
read it at any time, with `sqlite3`, pandas or `pcsim study show`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from pcsim.errors import StudyError
from pcsim.experiments.sweep.job import COLUMNS, Outcome, Row
from pcsim.experiments.sweep.plan import Plan, PlannedRun
from pcsim.experiments.task import EngineName
from pcsim.hidden_file import replacing

FILE = "index.sqlite"
RUNS = "runs"
VERSION = 1
APPLICATION = 0x70637374  # "pcst", in the file's header
BUSY_SECONDS = 30.0

# waiting: no result yet; paused: after a round of halving; stopped: halving gave it up.
State = Literal["waiting", "paused", "stopped", "finished", "failed"]

_SCHEMA = f"""
CREATE TABLE study (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE runs (
  run TEXT PRIMARY KEY,
  configuration TEXT NOT NULL,
  settings TEXT NOT NULL,
  overrides TEXT NOT NULL,
  seed INTEGER NOT NULL,
  engine TEXT NOT NULL,
  model TEXT NOT NULL,
  epochs INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN {get_args(State)}),
  epochs_done INTEGER NOT NULL DEFAULT 0,
  trace TEXT NOT NULL,
  error TEXT NOT NULL DEFAULT '',
  worker TEXT NOT NULL DEFAULT '',
  resumed_from INTEGER NOT NULL DEFAULT 0,
  changed TEXT NOT NULL
);
CREATE TABLE epochs (
  run TEXT NOT NULL REFERENCES runs (run),
  epoch INTEGER NOT NULL,
  training_steps INTEGER NOT NULL,
  validation_accuracy REAL,
  validation_loss REAL,
  test_accuracy REAL,
  test_loss REAL,
  energy REAL,
  seconds REAL NOT NULL,
  PRIMARY KEY (run, epoch)
) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""


@dataclass(frozen=True)
class IndexRow:
    """What the index says of a run.

    Attributes:
        run: its name.
        configuration: what it has in common with the runs of other seeds.
        settings: what the sweep set, by key.
        overrides: all that it changes in the model file.
        seed: of weights and shuffling.
        engine: which runs it.
        model: the whole model.
        epochs: of the whole run.
        state: how it stands.
        epochs_done: so far.
        trace: path of its trace, from the study's folder.
        error: why it failed.
        worker: machine and process that trained it last.
        resumed_from: epochs that an earlier process had done.
        changed: when the row was last changed, ISO 8601.
    """

    run: str
    configuration: str
    settings: Mapping[str, Any]
    overrides: tuple[str, ...]
    seed: int
    engine: EngineName
    model: Mapping[str, Any]
    epochs: int
    state: State
    epochs_done: int
    trace: str
    error: str
    worker: str
    resumed_from: int
    changed: str


class Index:
    """An index that can be read, and, by one process, written."""

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self.folder, self._connection = folder, connection

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator[Index]:
        """Open the index of a study.

        Raises:
            StudyError: there is none, or it is none, or of another version, or damaged.
        """
        path = folder / FILE
        if not path.is_file():
            raise StudyError(f"{folder} is no study: expected a folder with {FILE}, as pcsim sweep makes it")
        with _said_in_one_line(path), closing(_connect(path)) as connection:
            found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in _MARKS]
            if found != [APPLICATION, VERSION]:
                raise StudyError(
                    f"{path} is an index of version {found[1]}, application {found[0]:#x}: expected version "
                    f"{VERSION} of pcsim; use another folder"
                )
            yield cls(folder, connection)

    @classmethod
    @contextmanager
    def begin(cls, folder: Path) -> Iterator[Index]:
        """Open the index of a study; make it first if there is none yet.

        Raises:
            StudyError: as `open`; the folder cannot be written.
        """
        path = folder / FILE
        if not path.exists():
            try:
                with replacing(path) as file, closing(sqlite3.connect(":memory:")) as empty:
                    empty.executescript(_SCHEMA)
                    file.write(empty.serialize())
            except OSError as error:
                raise StudyError(f"cannot write {folder}: {error.strerror}; give another --study") from error
        with cls.open(folder) as index:
            yield index

    def add(self, plan: Plan, facts: Mapping[str, str]) -> None:
        """Add the runs of a plan that are not there yet, and what is said of the study."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO study VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                facts.items(),
            )
            connection.executemany(
                "INSERT OR IGNORE INTO runs (run, configuration, settings, overrides, seed, engine, model, "
                "epochs, state, trace, changed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'waiting', ?, ?)",
                (self._new(run) for run in plan.runs),
            )

    def record(self, outcome: Outcome, state: State) -> None:
        """Take in what became of a run: its row and its epochs, in one transaction."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE runs SET state = ?, epochs_done = ?, error = ?, worker = ?, resumed_from = ?, "
                "changed = ? WHERE run = ?",
                (
                    state,
                    len(outcome.epochs),
                    outcome.error,
                    outcome.worker,
                    outcome.resumed_from,
                    _now(),
                    outcome.run,
                ),
            )
            connection.execute("DELETE FROM epochs WHERE run = ?", (outcome.run,))
            marks = ", ".join("?" * (len(COLUMNS) + 1))
            connection.executemany(
                f"INSERT INTO epochs (run, {', '.join(COLUMNS)}) VALUES ({marks})",
                ((outcome.run, *(row.get(name) for name in COLUMNS)) for row in outcome.epochs),
            )

    def set_state(self, runs: Iterable[str], state: State) -> None:
        """Change how some runs stand."""
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE runs SET state = ?, changed = ? WHERE run = ? AND state <> ?",
                ((state, _now(), run, state) for run in runs),
            )

    def rows(self) -> list[IndexRow]:
        """Return all runs, in the order in which they were planned.

        Raises:
            StudyError: the index is damaged.
        """
        names = ", ".join(IndexRow.__dataclass_fields__)
        with _said_in_one_line(self.folder / FILE):
            found = self._connection.execute(f"SELECT {names} FROM runs ORDER BY rowid").fetchall()
        return [_row(dict(row)) for row in found]

    def epochs(self) -> dict[str, list[Row]]:
        """Return the results of all epochs, by run; what is not known is left out.

        Raises:
            StudyError: the index is damaged.
        """
        names = ", ".join(COLUMNS)
        found: dict[str, list[Row]] = {}
        with _said_in_one_line(self.folder / FILE):
            for row in self._connection.execute(f"SELECT run, {names} FROM epochs ORDER BY run, epoch"):
                known = {name: row[name] for name in COLUMNS if row[name] is not None}
                found.setdefault(row["run"], []).append(known)
        return found

    def facts(self) -> dict[str, str]:
        """Return what is said of the study.

        Raises:
            StudyError: the index is damaged.
        """
        with _said_in_one_line(self.folder / FILE):
            return {row["key"]: row["value"] for row in self._connection.execute("SELECT * FROM study")}

    def _new(self, run: PlannedRun) -> tuple[object, ...]:
        texts = (json.dumps(one) for one in (run.settings, run.overrides))
        model = json.dumps(run.model)
        trace = f"{RUNS}/{run.run}/trace.h5"
        return (run.run, run.configuration, *texts, run.seed, run.engine, model, run.epochs, trace, _now())

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _said_in_one_line(self.folder / FILE), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection


_MARKS = ("application_id", "user_version")


def _connect(path: Path) -> sqlite3.Connection:
    """Open a database that keeps what it has said even if the power fails: a rollback journal, no WAL."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


@contextmanager
def _said_in_one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StudyError(
            f"{path}: {error}: expected an index of pcsim that can be read and written"
        ) from error


def _row(found: dict[str, Any]) -> IndexRow:
    for name in ("settings", "overrides", "model"):
        found[name] = json.loads(found[name])
    return IndexRow(**found | {"overrides": tuple(found["overrides"])})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
