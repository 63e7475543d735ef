"""The supervisor, with roles that say what real ones would."""

import msgspec
import pytest

from semagent import supervisor
from semagent.bus.zeromq import Endpoints
from semagent.channels import Role
from semagent.config import Part, find_config, load_config
from semagent.process import Announced, FromChild, Plan, Ready, ToChild
from semagent.supervisor import Supervisor
from semagent.types import Capabilities

NOWHERE = Endpoints(publisher="inproc://nowhere", pulse="inproc://nowhere")


class Child:
    def __init__(self, plan: Plan) -> None:
        self.role = plan.role
        seen = Capabilities(driver="stub", microscope="bench", verified_on=None)
        self.says: list[FromChild] = [
            Announced(endpoints=NOWHERE, capabilities=seen),
            Ready(listens=()),
        ]

    def receive(self, _deadline_s: float) -> FromChild:
        return self.says.pop(0)

    def send(self, message: ToChild) -> None:
        pass

    def end(self, _deadline_s: float) -> bool:
        return True


@pytest.mark.parametrize("restoration", [None, Part(name="onnxruntime")])
def test_all_roles_are_expected_to_give_signs_of_life(
    monkeypatch: pytest.MonkeyPatch, restoration: Part | None
):
    monkeypatch.setattr(supervisor, "_Child", Child)
    config = msgspec.structs.replace(load_config(find_config("simulated")), restoration=restoration)
    run = Supervisor(config, console=True)
    try:
        run.start()
        restores = set() if restoration is None else {Role.RESTORE}
        expected = {Role.ACQUIRE, Role.INFER, Role.CONTROL, Role.CONSOLE} | restores
        assert set(run.roles) == expected
    finally:
        run.close()
