"""How a NAT behaves, in the words of RFC 4787, and which pairs of NATs leave room for a direct path. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from dhtvpn.errors import UsageError


class Mapping(Enum):
    """When one internal endpoint gets another external port (RFC 4787, section 4.1)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"


class Filtering(Enum):
    """From whom a NAT lets packets in to a mapping (RFC 4787, section 5)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"


class Allocation(Enum):
    """Which external port a new mapping gets (RFC 4787, section 4.2.1): the internal one where it is free,
    one by chance, or the one after the last."""

    PRESERVING = "preserving"
    RANDOM = "random"
    CONTIGUOUS = "contiguous"


_INITIALS = {
    "endpoint-independent": "EI",
    "address-dependent": "AD",
    "address-and-port-dependent": "APD",
}


@dataclass(frozen=True)
class Nat:
    """One NAT's behaviour.

    ``expiry_s``: how long an idle mapping lives (RFC 4787 REQ-5: two minutes). ``hairpinning``: a host inside
    reaches another one at its external endpoint and is seen there under its own (REQ-9); what comes that way
    is not filtered. Raises UsageError for a dependent mapping that shall preserve the port: the second
    destination could not have it.
    """

    mapping: Mapping = Mapping.ENDPOINT_INDEPENDENT
    filtering: Filtering = Filtering.ADDRESS_AND_PORT_DEPENDENT
    allocation: Allocation = Allocation.PRESERVING
    expiry_s: int = 120
    hairpinning: bool = False

    def __post_init__(self) -> None:
        if self.dependent and self.allocation is Allocation.PRESERVING:
            raise UsageError("a mapping that depends on the destination cannot preserve the port")
        if self.expiry_s < 1:
            raise UsageError("a NAT mapping must live for at least one second")

    @property
    def dependent(self) -> bool:
        """Whether another destination may mean another external port."""
        return self.mapping is not Mapping.ENDPOINT_INDEPENDENT

    @property
    def short(self) -> str:
        """For a narrow table: mapping ``EIM``, ``ADM`` or ``APDM``, then filtering ``EIF``, ``ADF`` or
        ``APDF``."""
        return f"{_INITIALS[self.mapping.value]}M/{_INITIALS[self.filtering.value]}F"

    def __str__(self) -> str:
        words = (
            f"{self.mapping.value} mapping, {self.filtering.value} filtering, {self.allocation.value} ports"
        )
        return f"{words}, hairpinning" if self.hairpinning else words


OPEN_FILTERING = Nat(filtering=Filtering.ENDPOINT_INDEPENDENT)
ADDRESS_RESTRICTED = Nat(filtering=Filtering.ADDRESS_DEPENDENT)
PORT_RESTRICTED = Nat(filtering=Filtering.ADDRESS_AND_PORT_DEPENDENT)
SYMMETRIC = Nat(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.RANDOM)
CARRIER = Nat(filtering=Filtering.ADDRESS_DEPENDENT, allocation=Allocation.RANDOM, hairpinning=True)
"""A carrier's NAT as RFC 6888 asks for it: nothing looser, no port preserved, hairpinning."""


def can_be_direct(one: Sequence[Nat], other: Sequence[Nat]) -> bool:
    """Whether ICE's checks can join two hosts behind these NATs, the nearest first; none: public.

    Each side knows the other's external endpoint as a third party has seen it, both send there again and
    again, and a check is answered from where it was heard. No port is foreseen. Every NAT maps as RFC 4787
    says, also for what answers a packet that was let in.
    """
    return _joins(one, other) or _joins(other, one)


def _joins(sender: Sequence[Nat], receiver: Sequence[Nat]) -> bool:
    """Whether ``sender``'s first check gets in, and what follows comes to a working pair."""
    if not _gets_in(sender, receiver):
        return False
    if not _is_dependent(receiver):
        return True  # it answers from where it was asked, through the filter that the check has opened
    if not _is_dependent(sender):
        return False  # the answer comes from another port; the checks of the other side decide
    # The answering check leaves from a port that is new to the sender: it must not filter by port. Then
    # somebody answers from the same port as before only if its mapping does not ask for the port either.
    by_address = any(_by_address_at_most(side) for side in (sender, receiver))
    return by_address and all(nat.filtering is not Filtering.ADDRESS_AND_PORT_DEPENDENT for nat in sender)


def _gets_in(sender: Sequence[Nat], receiver: Sequence[Nat]) -> bool:
    """Whether a check of ``sender`` passes every filter in front of ``receiver``, from inside to outside.

    A filter that is not endpoint-independent has been opened only if the receiver's own checks leave by the
    mapping that the sender knows; one that asks for the port, only if the sender's port is the known one.
    """
    known_mapping = True
    for nat in receiver:
        known_mapping = known_mapping and not nat.dependent
        if nat.filtering is Filtering.ENDPOINT_INDEPENDENT:
            continue
        if not known_mapping:
            return False
        if nat.filtering is Filtering.ADDRESS_AND_PORT_DEPENDENT and _is_dependent(sender):
            return False
    return True


def _is_dependent(nats: Sequence[Nat]) -> bool:
    return any(nat.dependent for nat in nats)


def _by_address_at_most(nats: Sequence[Nat]) -> bool:
    return all(nat.mapping is not Mapping.ADDRESS_AND_PORT_DEPENDENT for nat in nats)
