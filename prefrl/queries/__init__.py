"""Which segments to ask about, and when."""

from prefrl.queries.maker import MIXED as MIXED
from prefrl.queries.maker import QueryMaker as QueryMaker
from prefrl.queries.methods import METHODS as METHODS
from prefrl.queries.methods import Pair as Pair
from prefrl.queries.methods import QueryMethod as QueryMethod
from prefrl.queries.methods import SegmentScorer as SegmentScorer
from prefrl.queries.methods import check_members as check_members
from prefrl.queries.methods import pair_embeddings as pair_embeddings
from prefrl.queries.methods import reads_asked as reads_asked
from prefrl.queries.sampling import propose_pairs as propose_pairs
from prefrl.queries.schedule import SCHEDULES as SCHEDULES
from prefrl.queries.schedule import LabelSchedule as LabelSchedule
from prefrl.queries.scores import disagreement as disagreement
from prefrl.queries.scores import entropy as entropy
from prefrl.queries.scores import k_center as k_center
from prefrl.queries.screen import Screen as Screen
