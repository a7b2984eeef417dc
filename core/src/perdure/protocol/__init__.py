"""Sessions over HTTP: the messages of the protocol, for clients and for servers.

``docs/protocol.md`` specifies the bytes. Nothing here does I/O or imports an HTTP library.
"""
