"""What is asked of finished runs: the report card of a reward, the quality of answers, videos, a reward fitted anew."""

from prefrl.studies.film import record_video as record_video
from prefrl.studies.report import report_run as report_run
from prefrl.studies.run_quality import run_quality as run_quality
