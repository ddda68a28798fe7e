"""The durable record of segments, queries, answers and annotators."""

from prefrl.store.addition import Addition as Addition
from prefrl.store.claims import Claim as Claim
from prefrl.store.clips import Clip as Clip
from prefrl.store.record import PreferenceStore as PreferenceStore
from prefrl.store.rows import QueryCard as QueryCard
