#!/usr/bin/env python3
"""Prints what the broker of an AMQP URL says of itself when one connects: product and version."""

import socket
import struct
import sys
from urllib.parse import urlsplit

SECONDS = 10
METHOD_FRAME = 1
CONNECTION_START = (10, 10)


def read(connection, count):
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise ConnectionError("the broker closed the connection")
        data += more
    return data


def server_properties(host, port):
    """The server-properties of connection.start that are long strings; tables among them are
    passed over, and other types end the reading: RabbitMQ sends none."""
    with socket.create_connection((host, port), timeout=SECONDS) as connection:
        connection.sendall(b"AMQP\0\0\x09\x01")
        kind, _, size = struct.unpack(">BHI", read(connection, 7))
        payload = read(connection, size)
    # Class and method, then the version of the protocol, in two bytes, and the table's length.
    if kind != METHOD_FRAME or struct.unpack_from(">HH", payload) != CONNECTION_START:
        raise ConnectionError("the broker does not begin with connection.start")
    end = 10 + struct.unpack_from(">I", payload, 6)[0]
    at = 10
    properties = {}
    while at < end:
        length = payload[at]
        name = payload[at + 1:at + 1 + length].decode()
        at += 1 + length
        field = payload[at:at + 1]
        size, = struct.unpack_from(">I", payload, at + 1)
        if field == b"S":
            properties[name] = payload[at + 5:at + 5 + size].decode()
        elif field != b"F":
            raise ValueError(f"server property {name} is of type {field}")
        at += 5 + size
    return properties


def main(arguments):
    if len(arguments) != 1:
        print("usage: server_version.py AMQP-URL", file=sys.stderr)
        return 2
    url = urlsplit(arguments[0])
    properties = server_properties(url.hostname, url.port)
    print(properties["product"], properties["version"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
