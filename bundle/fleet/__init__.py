"""Workers on other machines: where they run, how they are spoken to, and a client that asks through them."""

from bundle.fleet.client import DistantClient
from bundle.fleet.host import UNTIL_MISSED_S, Host, Machine, Program
from bundle.fleet.link import Link

__all__ = ["UNTIL_MISSED_S", "DistantClient", "Host", "Link", "Machine", "Program"]
