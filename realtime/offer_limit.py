"""How many offers one address may make. Pure: time is given."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

TABLE = 1024  # addresses remembered; whoever falls out begins with a full bucket again


class OfferLimit:
    """A token bucket per remote address. An offer costs milliseconds of work, a refusal none.

    Behind a proxy every caller has the proxy's address and they share one bucket.

    Args:
        rate: Offers a second, each address.
        burst: Of which so many may come at once.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, burst
        self._buckets: OrderedDict[str, tuple[float, int]] = OrderedDict()  # tokens, as of when

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, address: str, now_ns: int) -> float:
        """Take a token: 0. Or, without one, the seconds until there is one."""
        key = _network(address)
        tokens, seen_ns = self._buckets.pop(key, (float(self._burst), now_ns))
        tokens = min(self._burst, tokens + max(0, now_ns - seen_ns) * self._rate / 1e9)
        admitted = tokens >= 1
        self._buckets[key] = (tokens - admitted, now_ns)  # now the youngest
        if len(self._buckets) > TABLE:
            self._buckets.popitem(last=False)
        return 0.0 if admitted else (1 - tokens) / self._rate


def _network(address: str) -> str:
    """One key for a caller: an IPv6 subscriber has 2**64 addresses, so their /64 counts as one."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if ip.version == 4:
        return str(ip)
    mapped = ip.ipv4_mapped
    if mapped is not None:
        return str(mapped)
    return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
