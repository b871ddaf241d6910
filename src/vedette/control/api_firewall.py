"""The admin API's part of the firewall.

Owns: its paths. Must not: decide anything; every handler is one call on `Node.firewall`.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI, Request

from vedette.control.firewall_messages import (
    JudgeAnswer,
    JudgeWish,
    ReplayAnswer,
    ReplayWish,
    RuleSetStatus,
    RuleSetWish,
    TuneAnswer,
    TuneWish,
)
from vedette.control.messages import Activation
from vedette.control.node import Node


def add_firewall(app: FastAPI, node: Node, actor_of: Callable[[Request], str]) -> None:
    """Adds the paths of the firewall to the admin API."""

    @app.post("/v1/waf/judge")
    def judge(wish: JudgeWish) -> JudgeAnswer:
        """What the firewall says of requests."""
        return node.firewall.judge(wish)

    @app.post("/v1/waf/replay")
    def replay(wish: ReplayWish) -> ReplayAnswer:
        """What the active firewall and another say of requests."""
        return node.firewall.replay(wish)

    @app.post("/v1/waf/tune")
    def tune(wish: TuneWish) -> TuneAnswer:
        """Exclusions that security events suggest, each with what else it would let through."""
        return node.firewall.tune(wish)

    @app.get("/v1/waf/rules")
    def rules() -> RuleSetStatus:
        """The Core Rule Set in force, and the installed one."""
        return node.firewall.rules()

    @app.put("/v1/waf/rules")
    def put_rules(wish: RuleSetWish, request: Request) -> Activation:
        """Puts a signed rule set in force, or the installed one."""
        return node.firewall.update(wish, actor_of(request))
