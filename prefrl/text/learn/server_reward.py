"""A reward behind an HTTP address.

Prompts and responses are posted as JSON, `{"query": [prompt + response, ...], "prompts": [...], "labels": [...]}`, and
`{"rewards": [...]}` with one number for each comes back: the form that OpenRLHF posts to its remote reward models.
`responses` is sent beside them. `prefrl text serve` answers so.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence

from prefrl.errors import UserError
from prefrl.servers import OWN_HOSTS, ask_server, check_address

KEY_VARIABLE = "PREFRL_REWARD_KEY"
"""Of the environment: the token that a server is shown."""


class ServerReward:
    """Asks a server for the rewards of responses; one that does not answer is asked again, five times in all.

    It is shown the token in `PREFRL_REWARD_KEY`, if there is one.

    Args:
        address: `http://` or `https://`.
        timeout: seconds to wait for an answer.

    Raises:
        UserError: it is no address, or holds a password or token, which `config.json` would keep.
    """

    def __init__(self, address: str, timeout: float = 60.0) -> None:
        place = check_address(address, "reward")
        if place.username or place.password or "token=" in place.query:
            raise UserError(f"The reward's address must hold no password or token: put it into {KEY_VARIABLE}.")
        key = os.environ.get(KEY_VARIABLE)
        if key and not (key.isascii() and key.isprintable() and " " not in key):
            raise UserError(f"The key in {KEY_VARIABLE} holds a space or another character that no key has.")
        if key and place.scheme == "http" and place.hostname not in OWN_HOSTS:
            said = f"The key in {KEY_VARIABLE} goes to {place.hostname} unencrypted (http). Use https."
            warnings.warn(said, stacklevel=2)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.address, self.timeout = address, timeout

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """Return B rewards.

        Raises:
            UserError: it does not answer, or not with one number for each response.
        """
        query = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
        body = {"query": query, "prompts": list(prompts), "labels": [""] * len(query), "responses": list(responses)}
        given = ask_server("reward", self.address, body, timeout=self.timeout, headers=self._headers)
        rewards = given.get("rewards") if isinstance(given, dict) else None
        numbers = isinstance(rewards, list) and all(type(reward) in (int, float) for reward in rewards)
        if rewards is None or not numbers or len(rewards) != len(query):
            raise UserError(
                f'The reward at {self.address} must answer {{"rewards": [...]}} with {len(query)} numbers. Received '
                f"{json.dumps(given)[:120]}"
            )
        return [float(reward) for reward in rewards]
