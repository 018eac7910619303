"""Errors of `realtime`.

RealtimeError
 |- BackendUnavailable  a backend was asked for by name and cannot run here
 |- EncoderFailed       a codec could not be opened or refused a frame
 |- SignalingError      an offer or control message is refused (`status`, one sentence)
 |   `- OverCapacity    too many sessions or viewers
 `- SessionClosed       used after its end
"""


class RealtimeError(Exception):
    """Whatever `realtime` raises on purpose."""


class BackendUnavailable(RealtimeError):
    """`name` cannot run here: `why`, and `how` to get it."""

    def __init__(self, name: str, why: str, how: str) -> None:
        super().__init__(f"backend {name!r} is unavailable: {why}. {how}")
        self.name, self.why, self.how = name, why, how


class EncoderFailed(RealtimeError):
    """A codec could not be opened, reconfigured or fed."""


class SignalingError(RealtimeError):
    """A client's message is refused. `status` is the HTTP status, its text one sentence for people.

    `code` is a stable name of the reason, for programs; `retry_s` says after how many seconds the
    same may be asked again, 0 if that is not known.
    """

    def __init__(
        self, message: str, status: int = 400, code: str = "bad_request", *, retry_s: int = 0
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.retry_s = status, code, retry_s


class OverCapacity(SignalingError):
    """The limit on sessions or viewers is reached."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=503, code="over_capacity")


class SessionClosed(RealtimeError):
    """The session has ended."""
