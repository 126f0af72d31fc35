"""The filter's bytes, run by a small interpreter of its instructions."""

import pytest

from dhtvpn.nat.reuseport import CONTROL_INDEX, ENGINE_INDEX, INSTRUCTIONS, PROGRAM


def run_filter(payload: bytes) -> int:
    accumulator, position = 0, 0
    while True:
        code, if_true, if_false, constant = INSTRUCTIONS[position]
        position += 1
        if code == 0x30:
            if constant >= len(payload):
                return 0
            accumulator = payload[constant]
        elif code == 0x54:
            accumulator &= constant
        elif code == 0x15:
            position += if_true if accumulator == constant else if_false
        else:
            assert code == 0x06
            return constant


@pytest.mark.parametrize("first", range(256))
def test_data_messages_are_the_engines_and_all_else_is_for_control(first: int) -> None:
    expected = ENGINE_INDEX if first in (4, 5, 6, 7, 0xD9) else CONTROL_INDEX
    assert run_filter(bytes([first, 0, 0, 0])) == expected


def test_an_empty_payload_is_for_control() -> None:
    assert run_filter(b"") == CONTROL_INDEX


def test_the_program_is_six_instructions_of_eight_bytes() -> None:
    assert len(INSTRUCTIONS) == 6
    assert len(PROGRAM) == 48
