"""The promises of api.py as calls: what a plug-in's own tests hold it to, and ours hold ours to."""

from soarctl.contracts.domain import check_domain
from soarctl.contracts.findings import ContractError
from soarctl.contracts.reward import check_reward
from soarctl.contracts.trainer import check_trainer

__all__ = ["ContractError", "check_domain", "check_reward", "check_trainer"]
