"""A reward behind an HTTP address.

Prompts and responses are posted as JSON, `{"query": [prompt + response, ...], "prompts": [...], "labels": [...]}`, and
`{"rewards": [...]}` with one number for each comes back: the form that OpenRLHF posts to its remote reward models.
`responses` is sent beside them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from prefrl.errors import UserError
from prefrl.text.data.server import ask_server, check_address


class ServerReward:
    """Asks a server for the rewards of responses; one that does not answer is asked again, five times in all.

    Args:
        address: `http://` or `https://`.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, address: str, timeout: float = 60.0) -> None:
        check_address(address, "reward")
        self.address, self.timeout = address, timeout

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """Return B rewards.

        Raises:
            UserError: it does not answer, or not with one number for each response.
        """
        query = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
        body = {"query": query, "prompts": list(prompts), "labels": [""] * len(query), "responses": list(responses)}
        given = ask_server("reward", self.address, body, timeout=self.timeout)
        rewards = given.get("rewards") if isinstance(given, dict) else None
        numbers = isinstance(rewards, list) and all(type(reward) in (int, float) for reward in rewards)
        if rewards is None or not numbers or len(rewards) != len(query):
            raise UserError(
                f'The reward at {self.address} must answer {{"rewards": [...]}} with {len(query)} numbers. Received '
                f"{json.dumps(given)[:120]}"
            )
        return [float(reward) for reward in rewards]
