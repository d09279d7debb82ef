"""The list that all systems are asked about, the addresses that they are asked, and the right answers.

Invariant: the same in every run; the right answers come from nothing that is measured, and those that systems are
compared with are found by looking at one rule after the other.
Not here: how a system is told the list (`systems.py`, `inprocess/`).
"""
import bisect
import ipaddress
import random
from typing import NamedTuple

SEED = 0x706F727463756C6C


class Rule(NamedTuple):
    """One entry: a range of IPv4 addresses and whether it lets them through."""

    first: int
    length: int
    allow: bool

    @property
    def last(self):
        return self.first | (1 << (32 - self.length)) - 1

    @property
    def range(self):
        return f"{text(self.first)}/{self.length}"


def text(address):
    return str(ipaddress.IPv4Address(address))


class List:
    """Ordered rules, the first that matches decides, and what no rule matches is allowed."""

    def __init__(self, count):
        self.rules = draw(count)
        self.cuts, self.winners = stretches(self.rules)

    def winner(self, address):
        """The place of the rule that decides, by bisection."""
        return self.winners[bisect.bisect(self.cuts, address) - 1]

    def allowed(self, address):
        place = self.winner(address)
        return place is None or self.rules[place].allow

    def flattened(self):
        """What is denied after all, as the fewest ranges: what is left when another program has settled the order."""
        denied = []
        for first, after, place in zip(self.cuts, self.cuts[1:], self.winners):
            if place is None or self.rules[place].allow:
                continue
            if denied and denied[-1][1] == first:
                first = denied.pop()[0]
            denied.append((first, after))
        ends = ((ipaddress.IPv4Address(first), ipaddress.IPv4Address(after - 1)) for first, after in denied)
        return [str(network) for first, last in ends for network in ipaddress.summarize_address_range(first, last)]

    def questions(self, count):
        """By turns an address that a rule decides and one that none matches. The deciding rules are spread evenly over
        those that win anywhere, in random order."""
        chance = random.Random(SEED - len(self.rules))
        wins = {}
        for first, after, place in zip(self.cuts, self.cuts[1:], self.winners):
            if place is not None:
                wins.setdefault(place, []).append((first, after - 1))
        places = sorted(wins)
        deciding = [places[at * len(places) // (count // 2)] for at in range(count // 2)]
        chance.shuffle(deciding)
        asked = []
        for place in deciding:
            asked.append(chance.randint(*chance.choice(wins[place])))
            outside = chance.getrandbits(32)
            while self.winner(outside) is not None:
                outside = chance.getrandbits(32)
            asked.append(outside)
        return asked


def draw(count):
    """Half of the rules as routing tables have them, /16 to /24 and half of those /24; the others inside one of the
    former, before or behind it, allowing or denying: so the order decides."""
    chance = random.Random(SEED + count)
    drawn = []
    while len(drawn) < count:
        if len(drawn) % 2:
            around = chance.choice(drawn)
            length = min(around.length + chance.randint(1, 4), 32)
            first = around.first | chance.getrandbits(32 - around.length)
        else:
            length = chance.choice([24, chance.randint(16, 23)])
            first = chance.getrandbits(32)
        drawn.append(Rule(first >> 32 - length << 32 - length, length, chance.random() < 0.5))
    chance.shuffle(drawn)
    return drawn


def scan(rules, address):
    """Whether the address is allowed, by looking at one rule after the other."""
    return next((rule.allow for rule in rules if rule.first <= address <= rule.last), True)


def stretches(rules):
    """All addresses cut at the ends of the ranges, and the place of the rule that wins from each cut to the next."""
    cuts = sorted({0, 1 << 32} | {end for rule in rules for end in (rule.first, rule.last + 1)})
    at = {cut: index for index, cut in enumerate(cuts)}
    winners = [None] * (len(cuts) - 1)
    # For every stretch, where to look for the next one that no rule has taken yet.
    free = list(range(len(cuts)))

    def next_free(index):
        while free[index] != index:
            free[index] = free[free[index]]
            index = free[index]
        return index

    for place, rule in enumerate(rules):
        index = next_free(at[rule.first])
        while cuts[index] <= rule.last:
            winners[index], free[index] = place, index + 1
            index = next_free(index)
    return cuts, winners
