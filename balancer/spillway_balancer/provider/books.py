"""What each account has been charged, to the last digit: what a provider's bill would say.

Billed as providers bill: a request that is refused, or that fails before anything was generated, costs nothing; a
stream that is cut, by the provider or by the client, costs its prompt and what had been generated. `told` are the
requests whose usage went out with the answer; the others only the provider knows exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any, NamedTuple

from .counting import Counted

EXACT = Context(prec=80, traps=[Inexact, InvalidOperation])


class Prices(NamedTuple):
    """Of one million tokens of each sort."""

    input: Decimal
    cached: Decimal
    written: Decimal
    output: Decimal
    written_1h: Decimal

    @classmethod
    def read(cls, said: str) -> tuple[str, Prices]:
        """MODEL=input,cached,written,output[,written for an hour]; ValueError for anything else."""
        model, _, rest = said.rpartition("=")
        try:
            each = [Decimal(one.strip()) for one in rest.split(",")]
        except InvalidOperation:
            each = []
        if not model or len(each) not in (4, 5) or any(not one.is_finite() or one < 0 for one in each):
            raise ValueError(f"{said!r} is no price: use MODEL=INPUT,CACHED,WRITTEN,OUTPUT, of a million tokens each")
        return model, cls(each[0], each[1], each[2], each[3], each[4] if len(each) == 5 else each[2])

    def cost(self, counted: Counted) -> Decimal:
        total = Decimal(0)
        for price, tokens in (
            (self.input, counted.fresh),
            (self.cached, counted.cached),
            (self.written, counted.written),
            (self.written_1h, counted.written_1h),
            (self.output, counted.output),
        ):
            total = EXACT.add(total, EXACT.multiply(EXACT.scaleb(price, -6), Decimal(tokens)))
        return total


@dataclass(slots=True)
class Page:
    """One column of sums."""

    requests: int = 0
    input: int = 0
    cached: int = 0
    written: int = 0
    output: int = 0
    reasoning: int = 0
    amount: Decimal = field(default_factory=Decimal)

    def add(self, counted: Counted, amount: Decimal) -> None:
        self.requests += 1
        self.input += counted.prompt
        self.cached += counted.cached
        self.written += counted.written + counted.written_1h
        self.output += counted.output
        self.reasoning += counted.reasoning
        self.amount = EXACT.add(self.amount, amount)

    def shown(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "input": self.input,
            "cached": self.cached,
            "written": self.written,
            "output": self.output,
            "reasoning": self.reasoning,
            "amount": plain(self.amount),
        }


@dataclass(slots=True)
class Account:
    """The book of one key: all requests, those that were refused or failed unbilled, and the billed ones by model."""

    requests: int = 0
    refused: int = 0
    told: dict[str, Page] = field(default_factory=dict)
    untold: dict[str, Page] = field(default_factory=dict)
    unpriced: int = 0


class Books:
    """The books of one provider. Models without a price are billed nothing, and counted."""

    def __init__(self, keys: tuple[str, ...], prices: dict[str, Prices]) -> None:
        self._prices = prices
        self.accounts = {name: Account() for name in keys}

    def bill(self, name: str, model: str, counted: Counted, told: bool) -> None:
        account = self.accounts[name]
        account.requests += 1
        prices = self._prices.get(model)
        account.unpriced += prices is None
        pages = account.told if told else account.untold
        pages.setdefault(model, Page()).add(counted, Decimal(0) if prices is None else prices.cost(counted))

    def refuse(self, name: str) -> None:
        """A request that cost nothing."""
        self.accounts[name].requests += 1
        self.accounts[name].refused += 1

    def clear(self) -> None:
        for name in self.accounts:
            self.accounts[name] = Account()

    def shown(self) -> dict[str, Any]:
        """All of it. Amounts are decimal strings, which JSON's numbers could not hold."""
        total = told = Decimal(0)
        keys: dict[str, Any] = {}
        for name, account in self.accounts.items():
            sums = [sum_of(pages) for pages in (account.told, account.untold)]
            told = EXACT.add(told, sums[0])
            total = EXACT.add(total, EXACT.add(*sums))
            keys[name] = {
                "requests": account.requests,
                "refused": account.refused,
                "unpriced": account.unpriced,
                "amount": plain(EXACT.add(*sums)),
                "told": {model: page.shown() for model, page in sorted(account.told.items())},
                "untold": {model: page.shown() for model, page in sorted(account.untold.items())},
            }
        return {"currency": "USD", "amount": plain(total), "told": plain(told), "keys": keys}


def sum_of(pages: dict[str, Page]) -> Decimal:
    total = Decimal(0)
    for page in pages.values():
        total = EXACT.add(total, page.amount)
    return total


def plain(amount: Decimal) -> str:
    """Without an exponent, and without zeros at its end."""
    shown = f"{amount:f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown
