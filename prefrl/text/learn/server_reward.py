"""A reward behind an HTTP address.

Prompts and responses are posted as JSON, `{"query": [prompt + response, ...], "prompts": [...], "labels": [...]}`, and
`{"rewards": [...]}` with one number for each comes back: the form that OpenRLHF posts to its remote reward models.
`responses` is sent beside them.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Sequence

from prefrl.errors import UserError

ATTEMPTS = 4
FIRST_WAIT_SECONDS = 0.5


class ServerReward:
    """Asks a server for the rewards of responses; one that does not answer is asked again, four times in all.

    Args:
        address: `http://` or `https://`.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, address: str, timeout: float = 60.0) -> None:
        self.address, self.timeout = address, timeout

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """Return B rewards.

        Raises:
            UserError: it does not answer, or not with one number for each response.
        """
        query = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
        body = {"query": query, "prompts": list(prompts), "labels": [""] * len(query), "responses": list(responses)}
        given = self._ask(json.dumps(body).encode())
        rewards = given.get("rewards") if isinstance(given, dict) else None
        numbers = isinstance(rewards, list) and all(type(reward) in (int, float) for reward in rewards)
        if rewards is None or not numbers or len(rewards) != len(query):
            raise UserError(
                f'The reward at {self.address} must answer {{"rewards": [...]}} with {len(query)} numbers. Received '
                f"{json.dumps(given)[:120]}"
            )
        return [float(reward) for reward in rewards]

    def _ask(self, body: bytes) -> object:
        request = urllib.request.Request(self.address, body, {"Content-Type": "application/json"})
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as reply:
                    given: object = json.load(reply)
                    return given
            except ValueError as error:
                raise UserError(f"The reward at {self.address} gave no JSON: {error}") from error
            except OSError as error:  # also what the server refuses, and time that is up
                if attempt == ATTEMPTS:
                    raise UserError(f"The reward at {self.address} does not answer: {error}. Is it running?") from error
                time.sleep(FIRST_WAIT_SECONDS * 2 ** (attempt - 1))
        raise AssertionError("the last attempt returns or raises")
