"""Where servers listen."""

import psutil

from tests.services.server import Server


def addresses(server: Server) -> set[str]:
    """The addresses that its process has sockets at, all of them, one of which listens."""
    sockets = psutil.Process(server.pid).net_connections(kind="inet")
    listening = {socket.laddr.port for socket in sockets if socket.status == psutil.CONN_LISTEN}
    assert server.port in listening
    return {socket.laddr.ip for socket in sockets}
