"""The replay window of a keypair: RFC 6479, a ring of 128 words of 64 bits.

One word is always the one being filled, so the window is 8192 - 64 = 8128 counters wide. Only the words
between the old and the new greatest counter are cleared; nothing is ever shifted.
"""

from typing import Final

from dhtvpn.wireguard.constants import REJECT_AFTER_MESSAGES, REPLAY_WINDOW_BITS

_WORD_BITS: Final = 64
_WORDS: Final = REPLAY_WINDOW_BITS // _WORD_BITS
_WORD_MASK: Final = _WORDS - 1
_ALL_BITS: Final = (1 << _WORD_BITS) - 1

WINDOW: Final = REPLAY_WINDOW_BITS - _WORD_BITS
"""A counter that is this much or more behind the greatest one is refused."""


class ReplayWindow:
    """Says of each counter whether it came before. Feed it counters of authenticated messages only."""

    __slots__ = ("_accepted", "_greatest", "_words")

    def __init__(self) -> None:
        self._greatest = 0
        self._accepted = 0
        self._words = [0] * _WORDS

    def accept(self, counter: int) -> bool:
        """True the first time for a counter inside or ahead of the window; False for one that was seen,
        is too far behind, or is past REJECT_AFTER_MESSAGES."""
        greatest = self._greatest
        word = counter >> 6
        if counter > greatest:
            if counter >= REJECT_AFTER_MESSAGES:
                return False
            newest = greatest >> 6
            if word != newest:
                words = self._words
                for index in range(newest + 1, newest + 1 + min(word - newest, _WORDS)):
                    words[index & _WORD_MASK] = 0
            self._greatest = counter
        elif greatest - counter >= WINDOW:
            return False
        slot = word & _WORD_MASK
        bits = self._words[slot]
        bit = 1 << (counter & 63)
        if bits & bit:
            return False
        self._words[slot] = bits | bit
        self._accepted += 1
        return True

    def accept_run(self, first: int, count: int) -> bool:
        """:meth:`accept` for ``count`` consecutive counters at once. True where all of them are ahead of
        every counter seen so far: then all are taken. False otherwise: then none is."""
        last = first + count - 1
        if first <= self._greatest or last >= REJECT_AFTER_MESSAGES:
            return False
        words, word, end = self._words, first >> 6, last >> 6
        for index in range((self._greatest >> 6) + 1, min(end, (self._greatest >> 6) + _WORDS) + 1):
            words[index & _WORD_MASK] = 0
        low = first & 63
        while word < end:
            words[word & _WORD_MASK] |= _ALL_BITS << low & _ALL_BITS
            word, low = word + 1, 0
        words[end & _WORD_MASK] |= (2 << (last & 63)) - (1 << low)
        self._greatest = last
        self._accepted += count
        return True

    def refuses(self, counter: int) -> bool:
        """Whether :meth:`accept` would return False; nothing changes. For any counter, authentic or not."""
        if counter > self._greatest:
            return counter >= REJECT_AFTER_MESSAGES
        if self._greatest - counter >= WINDOW:
            return True
        return bool(self._words[counter >> 6 & _WORD_MASK] >> (counter & 63) & 1)

    @property
    def greatest(self) -> int:
        """The greatest counter that was accepted; 0 before any."""
        return self._greatest

    @property
    def missing(self) -> int:
        """How many counters up to the greatest one were not accepted: lost, late, or refused."""
        return self._greatest + 1 - self._accepted
