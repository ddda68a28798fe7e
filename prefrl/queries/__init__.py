"""Which segments to ask about, and when."""

from prefrl.queries.kinds import QueryMaker as QueryMaker
from prefrl.queries.sampling import METHODS as METHODS
from prefrl.queries.sampling import SegmentScorer as SegmentScorer
from prefrl.queries.sampling import check_method as check_method
from prefrl.queries.sampling import disagreement as disagreement
from prefrl.queries.sampling import entropy as entropy
from prefrl.queries.sampling import k_center as k_center
from prefrl.queries.sampling import pair_embeddings as pair_embeddings
from prefrl.queries.sampling import propose_pairs as propose_pairs
from prefrl.queries.schedule import SCHEDULES as SCHEDULES
from prefrl.queries.schedule import LabelSchedule as LabelSchedule
