"""The state record of updates in a folder of the host, for tests/firmware/test_slots.py.

Each question is a list of steps on one record: "load" and "save", or a method with its arguments, bytes as hex.
"""

import os

from lines import serve

from laterne_firmware.slots import State, other

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def answer(question: "dict[str, Any]") -> object:
    os.chdir(question["folder"])
    state = State("slot")
    for name, *given in question["steps"]:
        if name == "raw":
            state.record.save(bytes.fromhex(given[0]))
        elif name == "arm":
            slot, release, index, sequence = given
            state.arm(slot, bytes.fromhex(release), bytes.fromhex(index), sequence)
        elif name == "set":
            setattr(state, given[0], given[1])
        else:
            getattr(state, name)(*given)
    return {
        "active": state.active,
        "trial": state.trial,
        "attempts": state.attempts,
        "power_ons": state.power_ons,
        "floor": state.floor,
        "result": [state.result[0], state.result[1].hex()] if state.result else None,
        "slots": {slot: [one[0].hex(), one[1].hex(), one[2]] for slot, one in state.slots.items()},
        "confirmed": state.confirmed,
        "refused": state.refused.hex() if state.refused else None,
        "other": other(state.active),
    }


serve(answer)
