"""What a run and its viewers tell those who watch a record: which facts there are, and what each is."""

from __future__ import annotations

import math
from typing import Any

TEXT, WHOLE, NUMBER, TRUTH = "a text", "a whole number", "a number", "true or false"
SHARE = {"num": WHOLE, "share": NUMBER, "low": NUMBER, "high": NUMBER}

FACTS: dict[str, tuple[Any, ...]] = {
    "env_id": (TEXT,),
    "examples": ([{"query": TEXT, "item": WHOLE, "good": TRUTH, "note": TEXT}],),
    "held_out_agreement": (SHARE, None),
    "instruction": (TEXT,),
    "known_by": (TEXT, None),
    "labels_before": (WHOLE,),
    "labels_wanted": (WHOLE,),
    "num_env_steps": (WHOLE,),
    "render_failure": (TEXT,),
    "run_id": (TEXT,),
    "seen_at": (NUMBER,),
    "served_at": (TEXT, None),
    "steadiness": ({"same_order": NUMBER, "from": WHOLE, "to": WHOLE},),
    "training": (TEXT,),
    "training_state": (TEXT,),
}
"""The forms that a fact may have, by its name."""
OF_SOMEBODY: dict[str, tuple[Any, ...]] = {
    "viewer ": ({"at": NUMBER, "pid": WHOLE, "host": TEXT}, None),
    "left ": ({"at": NUMBER, "answered": WHOLE, "num_env_steps": WHOLE},),
}
"""Those of an annotator, whose name follows."""


def check_fact(name: str, value: Any) -> None:
    """Check that a fact is what those who read it take it for; a name that is not known here is of another version.

    Raises:
        ValueError: it is something else.
    """
    forms = FACTS.get(name) or next((one for part, one in OF_SOMEBODY.items() if name.startswith(part)), None)
    if forms is not None and not any(_fits(form, value) for form in forms):
        raise ValueError(f"what it says of {name!r} is {str(value)[:60]!r}, which it cannot be")


def _fits(form: Any, value: Any) -> bool:
    if isinstance(form, dict):
        return isinstance(value, dict) and all(key in value and _fits(one, value[key]) for key, one in form.items())
    if isinstance(form, list):
        return isinstance(value, list) and all(_fits(form[0], one) for one in value)
    if form is None:
        return value is None
    if form == TEXT:
        return isinstance(value, str)
    if form == TRUTH:
        return isinstance(value, bool)
    if form == WHOLE:
        return type(value) is int and abs(value) < 2**63
    return type(value) in (int, float) and math.isfinite(value)
