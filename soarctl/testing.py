"""For tests of plug-ins: calls that hold one to the promises of api.py, and a world in which a run takes a second.

from soarctl.testing import check_domain

def test_it_keeps_the_promises() -> None:
    check_domain(SortingDomain(), accepted=["3 1 2 = 1 2 3"])
"""

from soarctl.contracts import ContractError, check_domain, check_reward, check_trainer
from soarctl.toy import ToyDomain, ToyEngine, ToyFleet, ToyTrainer, toy_run

__all__ = [
    "ContractError",
    "ToyDomain",
    "ToyEngine",
    "ToyFleet",
    "ToyTrainer",
    "check_domain",
    "check_reward",
    "check_trainer",
    "toy_run",
]
