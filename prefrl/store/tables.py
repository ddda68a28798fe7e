"""The tables of the record of preferences."""

from __future__ import annotations

from prefrl.errors import require
from prefrl.feedback.answers import BESIDE

try:
    import sqlalchemy as sa
except ModuleNotFoundError:
    require("sqlalchemy", "train")  # says which extra brings it
    raise

SCHEMA_VERSION = 3
"""Raised whenever a table changes; `prefrl.store.migration` brings older records up to it."""
FORMAT = "prefrl preferences"

metadata = sa.MetaData()
about = sa.Table(
    "about",
    metadata,
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("value", sa.String, nullable=False),
)
facts = sa.Table(  # what a run tells those who watch it, as JSON
    "facts",
    metadata,
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("value", sa.String, nullable=False),
)
annotators = sa.Table(
    "annotators",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("kind", sa.String, nullable=False),
)
segments = sa.Table(  # as in schema 1
    "segments",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("arrays", sa.LargeBinary, nullable=False),
    sa.Column("true_rewards", sa.LargeBinary, nullable=False),
    sa.Column("terminated", sa.Boolean, nullable=False),
    sa.Column("truncated", sa.Boolean, nullable=False),
    sa.Column("episode", sa.Integer, nullable=False),
    sa.Column("start", sa.Integer, nullable=False),
)
replays = sa.Table(  # what is needed to draw a segment; apart, so that those who fit need not read it
    "replays",
    metadata,
    sa.Column("segment_id", sa.ForeignKey("segments.id"), primary_key=True),
    sa.Column("arrays", sa.LargeBinary, nullable=False),
)
responses = sa.Table(
    "responses",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("prompt", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
)
queries = sa.Table(
    "queries",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("session", sa.Integer, nullable=False),
    sa.Column("position", sa.Integer),  # in its session; none for a repeat
    sa.Column("num_env_steps", sa.BigInteger, nullable=False),
    sa.Column("scale", sa.Integer),
    sa.Column("instruction", sa.Text, nullable=False),
    sa.Column("overlap", sa.Integer, nullable=False),
    sa.Column("missing", sa.Integer, nullable=False),  # answers still wanted; follows from the table of answers
    sa.Column("repeat_of", sa.ForeignKey("queries.id")),
    sa.Column("reserved_for", sa.String),  # the only annotator who is asked: of a repeat, a panel's, or assigned
    sa.UniqueConstraint("session", "position"),
)
is_open = queries.c.missing > sa.literal_column("0")  # no parameter: SQLite would not see that the index serves
"""The condition that answers to a query are missing."""
sa.Index("open_queries", queries.c.session, queries.c.position, sqlite_where=is_open, postgresql_where=is_open)
sa.Index(
    "repeated_queries",
    queries.c.repeat_of,
    sqlite_where=queries.c.repeat_of.isnot(None),
    postgresql_where=queries.c.repeat_of.isnot(None),
)
query_items = sa.Table(
    "query_items",
    metadata,
    sa.Column("query_id", sa.ForeignKey("queries.id"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("segment_id", sa.ForeignKey("segments.id")),
    sa.Column("response_id", sa.ForeignKey("responses.id")),
)
answers = sa.Table(
    "answers",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("token", sa.String, nullable=False, unique=True),  # recorded once, however often it is sent
    sa.Column("query_id", sa.ForeignKey("queries.id"), nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("value", sa.Text, nullable=False),  # JSON
    sa.Column("annotator", sa.ForeignKey("annotators.name"), nullable=False),
    sa.Column("shown", sa.String),  # JSON
    sa.Column("shown_at", sa.Double),
    sa.Column("answered_at", sa.Double),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("comment", sa.Text, nullable=False),
    sa.Column("reason", sa.String, nullable=False, server_default=""),
    sa.Column("flagged", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("adjudicates", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("undoes", sa.ForeignKey("answers.id"), unique=True),
    sa.Column("recorded_at", sa.Double, nullable=False),
    sa.Index("answers_by_query", "query_id", "annotator", "kind"),
    sa.Index("answers_by_annotator", "annotator", "kind", "id"),
    sqlite_autoincrement=True,
)
claims = sa.Table(  # of open queries; a row goes when its query is answered, given back or its time is over
    "claims",
    metadata,
    sa.Column("token", sa.String, primary_key=True),
    sa.Column("query_id", sa.ForeignKey("queries.id"), nullable=False),
    sa.Column("annotator", sa.String, nullable=False),
    sa.Column("shown", sa.String, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
    sa.UniqueConstraint("query_id", "annotator"),
)
clips = sa.Table(
    "clips",
    metadata,
    sa.Column("segment_id", sa.ForeignKey("segments.id"), primary_key=True),
    sa.Column("format", sa.String, nullable=False),
    sa.Column("frames_per_second", sa.Double, nullable=False),
    sa.Column("width", sa.Integer, nullable=False),
    sa.Column("height", sa.Integer, nullable=False),
    sa.Column("num_frames", sa.Integer, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)
renders = sa.Table(  # claims of rendering work, and why it cannot be done
    "renders",
    metadata,
    sa.Column("segment_id", sa.ForeignKey("segments.id"), primary_key=True),
    sa.Column("expires_at", sa.Double, nullable=False),
    sa.Column("error", sa.Text),
)

undos = answers.alias()  # made once: to make one takes longer than many a question to the file
"""The same rows, as those that take others back."""


def is_answer(entry: sa.FromClause = answers) -> sa.ColumnElement[bool]:
    """Return the condition that a row of `answers` answers its query: it is no edit, and takes nothing back."""
    return entry.c.kind.not_in(BESIDE)
