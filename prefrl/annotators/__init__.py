"""Who answers queries: the protocol, and simulated teachers."""

from prefrl.annotators.panel import Panel as Panel
from prefrl.annotators.panel import make_panel as make_panel
from prefrl.annotators.panel import panel_names as panel_names
from prefrl.annotators.protocol import Annotator as Annotator
from prefrl.annotators.reward_functions import SegmentReward as SegmentReward
from prefrl.annotators.reward_functions import load_reward_function as load_reward_function
from prefrl.annotators.simulated import SimulatedTeacher as SimulatedTeacher
from prefrl.annotators.simulated import TeacherSettings as TeacherSettings
from prefrl.annotators.teachers import PRESETS as PRESETS
from prefrl.annotators.teachers import TEACHERS as TEACHERS
from prefrl.annotators.teachers import CoinFlippingTeacher as CoinFlippingTeacher
from prefrl.annotators.teachers import InvertedTeacher as InvertedTeacher
from prefrl.annotators.teachers import MakeTeacher as MakeTeacher
from prefrl.annotators.teachers import make_teacher as make_teacher
