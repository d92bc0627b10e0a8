"""A TCP proxy before a broker: it cuts, delays, stalls and trickles, and it reads along.

What the broker said of each message is the measure for what the library says of it: the recorder
pairs `basic.publish` with `basic.ack`, `basic.nack` and `basic.return`, by the ids that the load
writes into its messages.
"""

import asyncio
import collections
import itertools
import socket
import struct
import threading

LOOPBACK = "127.0.0.1"

METHOD, BODY = 1, 3
FRAME_END = 0xCE
PUBLISH, RETURN = (60, 40), (60, 50)
ACK, NACK, CONFIRM_SELECT = (60, 80), (60, 120), (85, 10)

# Where the load has its id in a body: after the head of the map and of the number (load.c).
ID_MARK, ID_PLACE = b"\xa1n\xcf", slice(4, 12)


class Recorder:
    """What the broker said about the messages of the load, over all connections."""

    def __init__(self):
        self.acked = set()  # ids
        self.returned = set()


class Frames:
    """Cuts one direction of an AMQP connection into frames."""

    def __init__(self, skip):
        self._bytes = bytearray()
        self._skip = skip  # the protocol header, which is no frame

    def feed(self, data):
        """The frames that are whole now: (type, channel, payload)."""
        self._bytes += data
        at = self._skip
        if len(self._bytes) < at:
            return
        self._skip = 0
        while len(self._bytes) - at >= 8:
            kind, channel, size = struct.unpack_from(">BHI", self._bytes, at)
            end = at + 7 + size
            if len(self._bytes) <= end:
                break
            if self._bytes[end] != FRAME_END:
                raise ValueError(f"no AMQP frame at byte {at}: {bytes(self._bytes[at:at + 8])}")
            yield kind, channel, bytes(self._bytes[at + 7:end])
            at = end + 1
        del self._bytes[:at]


class Conversation:
    """Reads along on one connection, for the recorder."""

    def __init__(self, recorder):
        self._recorder = recorder
        self._from_client = Frames(skip=8)
        self._from_broker = Frames(skip=0)
        self._tags = {}  # channel -> the tag of the last publish, once confirms are on
        self._unsettled = collections.defaultdict(collections.OrderedDict)  # channel -> tag -> id
        self._open_publish = {}  # channel -> tag of the publish whose body is to come
        self._returns = set()  # channels on which a returned body is to come

    @property
    def publishes(self):
        return bool(self._tags)

    def from_client(self, data):
        for kind, channel, payload in self._from_client.feed(data):
            if kind == METHOD:
                method = struct.unpack_from(">HH", payload)
                if method == CONFIRM_SELECT:
                    # A channel that was closed and is opened again counts from the beginning.
                    self._tags[channel] = 0
                    self._unsettled.pop(channel, None)
                    self._open_publish.pop(channel, None)
                elif method == PUBLISH and channel in self._tags:
                    self._tags[channel] += 1
                    self._open_publish[channel] = self._tags[channel]
            elif kind == BODY and channel in self._open_publish:
                number = id_of(payload)
                tag = self._open_publish.pop(channel)
                if number is not None:
                    self._unsettled[channel][tag] = number

    def from_broker(self, data):
        for kind, channel, payload in self._from_broker.feed(data):
            if kind == METHOD:
                method = struct.unpack_from(">HH", payload)
                if method in (ACK, NACK):
                    tag, multiple = struct.unpack_from(">QB", payload, 4)
                    settled = self._settled(channel, tag, multiple & 1)
                    if method == ACK:
                        self._recorder.acked.update(settled)
                elif method == RETURN:
                    self._returns.add(channel)
            elif kind == BODY and channel in self._returns:
                self._returns.remove(channel)
                number = id_of(payload)
                if number is not None:
                    self._recorder.returned.add(number)

    def _settled(self, channel, tag, multiple):
        """Takes out the messages that an answer is about."""
        unsettled = self._unsettled[channel]
        tags = [tag] if not multiple else list(itertools.takewhile(lambda t: t <= tag, unsettled))
        return [unsettled.pop(tag) for tag in tags if tag in unsettled]


def id_of(body):
    return int.from_bytes(body[ID_PLACE], "big") if body[1:4] == ID_MARK else None


class Pipe:
    """One direction of one connection."""

    def __init__(self, proxy, connection, name, reader, writer, read_along):
        self._proxy = proxy
        self._connection = connection
        self._name = name
        self._reader = reader
        self._writer = writer
        self._read_along = read_along

    async def run(self):
        proxy = self._proxy
        while True:
            await proxy.open_way(self._name)
            data = await self._reader.read(65536)
            if not data:
                return
            await proxy.open_way(self._name)  # what was read while the way was shut waits
            if proxy.delay:
                await asyncio.sleep(proxy.delay)
            keep = self._connection.bytes_until_cut(len(data))
            await self._pass_on(data if keep is None else data[:keep])
            if keep is not None:
                self._connection.cut()
                return

    async def _pass_on(self, data):
        # Recorded first: the library may act on a byte before this program runs again.
        self._read_along(data)
        step = self._proxy.trickle or len(data)
        for at in range(0, len(data), step or 1):
            self._writer.write(data[at:at + step])
            await self._writer.drain()
            if self._proxy.trickle:
                await asyncio.sleep(0.0005)


class Connection:
    """One connection through the proxy. `publishes`: in confirm mode, so that it is for sends."""

    publishes = False

    def __init__(self, proxy, reader, writer):
        self._proxy = proxy
        self._reader = reader
        self._writer = writer
        self._broker = None
        self._cut_after = proxy.take_cut_of_next()

    def bytes_until_cut(self, coming):
        """How many of the `coming` bytes still pass, or None for all."""
        if self._cut_after is None:
            return None
        if self._cut_after > coming:
            self._cut_after -= coming
            return None
        return self._cut_after

    def cut_after(self, count):
        self._cut_after = count

    def cut(self, reset=True):
        """Ends both sides, with RST or with FIN."""
        for writer in (self._writer, self._broker):
            if writer is None:
                continue
            if reset:
                raw = writer.get_extra_info("socket")
                if raw is not None:
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            else:
                writer.close()
        self._proxy.count_cut()

    async def run(self):
        try:
            reader, self._broker = await asyncio.open_connection(LOOPBACK, self._proxy.target)
        except OSError:
            self._writer.transport.abort()  # as the broker's system would: refused
            return
        conversation = Conversation(self._proxy.recorder)

        def from_client(data):
            conversation.from_client(data)
            self.publishes = conversation.publishes

        pipes = (
            Pipe(self._proxy, self, "to_broker", self._reader, self._broker, from_client),
            Pipe(self._proxy, self, "to_client", reader, self._writer, conversation.from_broker),
        )
        tasks = [asyncio.ensure_future(pipe.run()) for pipe in pipes]
        try:
            done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception) and not isinstance(result, OSError):
                    self._proxy.problems.append(result)
        finally:
            self._writer.close()
            self._broker.close()


class Proxy:
    """Listens on a port of its own (`port`) and passes on to `target`, a port of this machine.

    The faults apply to all connections, unless said otherwise: `delay` (seconds for each piece),
    `trickle` (bytes at a time), `stall("to_client")` and `stall("to_broker")` until `resume()`,
    `cut_all()`, `cut_publishers()`, `cut_next(count)` (the next connection, after so many bytes),
    `cut_after(count)` (those that stand). Proxies before several brokers share a `recorder`. Usable
    from any thread.
    """

    def __init__(self, target, recorder=None):
        self.target = target
        self.recorder = recorder or Recorder()
        self.delay = 0.0
        self.trickle = 0
        self.problems = []  # what went wrong in the proxy itself
        self._ways = {}
        self._connections = {}
        self._cut_of_next = collections.deque()
        self._cuts = 0
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = self._call(self._listen())

    # On the thread of the caller.

    def url(self, vhost="asgi"):
        return f"amqp://guest:guest@{LOOPBACK}:{self.port}/{vhost}"

    def stall(self, way):
        self._call(self._set_way(way, False))

    def resume(self):
        for way in ("to_client", "to_broker"):
            self._call(self._set_way(way, True))

    def cut_all(self, reset=True):
        self._call(self._each(lambda connection: connection.cut(reset)))

    def cut_publishers(self, reset=True):
        """Cuts the connections that publish, and no other."""
        self._call(self._each(lambda connection: connection.publishes and connection.cut(reset)))

    def cut_after(self, count):
        self._call(self._each(lambda connection: connection.cut_after(count)))

    def cut_next(self, count):
        with self._changed:
            self._cut_of_next.append(count)

    def disarm(self):
        """Takes back the cuts that are still to come."""
        with self._changed:
            self._cut_of_next.clear()
        self.cut_after(None)

    def wait_for_cut(self, cuts, seconds):
        """Whether there have been `cuts` cuts within `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: self._cuts >= cuts, seconds)

    @property
    def cuts(self):
        with self._changed:
            return self._cuts

    @property
    def connections_now(self):
        return len(self._connections)

    def close(self):
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    # On the proxy's thread.

    async def _listen(self):
        self._ways = {way: asyncio.Event() for way in ("to_client", "to_broker")}
        for event in self._ways.values():
            event.set()
        self._server = await asyncio.start_server(self._accept, LOOPBACK, 0)
        return self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader, writer):
        connection = Connection(self, reader, writer)
        self._connections[connection] = asyncio.current_task()
        try:
            await connection.run()
        finally:
            del self._connections[connection]

    async def open_way(self, way):
        await self._ways[way].wait()

    async def _set_way(self, way, is_open):
        if is_open:
            self._ways[way].set()
        else:
            self._ways[way].clear()

    async def _each(self, act):
        for connection in list(self._connections):
            act(connection)

    def take_cut_of_next(self):
        with self._changed:
            return self._cut_of_next.popleft() if self._cut_of_next else None

    def count_cut(self):
        with self._changed:
            self._cuts += 1
            self._changed.notify_all()

    async def _close(self):
        self._server.close()
        tasks = list(self._connections.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
