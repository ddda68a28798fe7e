"""Queries put to annotators, and the answers they give: comparisons, rankings, ratings, and kinds of one's own."""

from prefrl.feedback.answers import REASONS as REASONS
from prefrl.feedback.answers import Answer as Answer
from prefrl.feedback.answers import Edit as Edit
from prefrl.feedback.answers import Entry as Entry
from prefrl.feedback.answers import Undo as Undo
from prefrl.feedback.answers import settled as settled
from prefrl.feedback.comparison import Comparison as Comparison
from prefrl.feedback.kinds import KINDS as KINDS
from prefrl.feedback.queries import Query as Query
from prefrl.feedback.queries import Response as Response
from prefrl.feedback.ranking import FEWEST_RANKED as FEWEST_RANKED
from prefrl.feedback.ranking import MOST_RANKED as MOST_RANKED
from prefrl.feedback.ranking import Ranking as Ranking
from prefrl.feedback.rating import LARGEST_SCALE as LARGEST_SCALE
from prefrl.feedback.rating import SMALLEST_SCALE as SMALLEST_SCALE
from prefrl.feedback.rating import Rating as Rating
from prefrl.feedback.strength import Strength as Strength
