"""What a handler decides about its message, where it knows best."""

from paperboy.errors import Rejected


class Verdict(BaseException):
    """Ends a message's hooks. No ``Exception``: an ``except Exception`` around the call is not to swallow it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.error = Rejected(reason)


class SkipIt(Verdict):
    """``ctx.skip``."""


class DeadLetterIt(Verdict):
    """``ctx.dead_letter``."""


class RetryItLater(Verdict):
    """``ctx.retry_later``."""

    def __init__(self, delay_sec: float, reason: str) -> None:
        super().__init__(reason)
        self.delay_sec = delay_sec
