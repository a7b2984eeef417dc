"""The protocol of ``docs/protocol.md`` as an ASGI application, on top of any backend.

Bare ASGI, so that any server can run it; ``perdure serve`` runs it on uvicorn. All of it lives
in one event loop.
"""

from perdure.backend import Backend, Capabilities
from perdure.errors import PerdureError
from perdure.protocol.auth import Claim, Keys
from perdure.protocol.paths import Operation, Route, route
from perdure.protocol.refusals import Answer, Code, Refused, answer_to
from perdure.protocol.requests import wait_of

from perdure_server.asgi import Receive, Scope, Send, header_of, start_of, target_of
from perdure_server.bodies import Disconnected, body_of
from perdure_server.clock import now_ms
from perdure_server.defects import defect
from perdure_server.limits import served
from perdure_server.load import Load
from perdure_server.operations import check_allowed, perform
from perdure_server.waiting import wait


class Application:
    """Serves a backend to the holders of ``keys``. Closes it when the server stops.

    Logs what fails unexpectedly (logger ``perdure.server``), and never a payload, an id, a path
    or a secret.
    """

    def __init__(
        self,
        backend: Backend,
        keys: Keys,
        *,
        max_requests: int = 256,
        max_waits: int = 4096,
        max_held_bytes: int = 256 << 20,
    ) -> None:
        """So many requests, waits, and bytes of bodies are taken at once; more is refused as
        ``overloaded``. Without keys everything is refused."""
        self.backend = backend
        self.keys = keys
        self.load = Load(requests=max_requests, waits=max_waits, held=max_held_bytes)
        self._known = backend.capabilities
        self._limits = served(backend.capabilities)

    @property
    def limits(self) -> Capabilities:
        """What is served of the backend's capabilities; connecting may have changed those."""
        if self._known is not self.backend.capabilities:
            self._known = self.backend.capabilities
            self._limits = served(self._known)
        return self._limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection to the application, as ASGI has it."""
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "websocket":
                await self._websocket(scope, receive, send)
            case "lifespan":
                await self._lifespan(receive, send)
            case other:
                raise ValueError(f"ASGI scope {other!r}")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.backend.open()
        except PerdureError as error:
            await self.backend.aclose()
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.backend.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self._answer(scope, receive)
        except Disconnected:
            return
        await send({"type": "http.response.start", **start_of(answer)})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        """Do what a request asks for, or say why not."""
        try:
            asked, target, claim = self._admit(scope["method"], scope)
            async with body_of(scope, receive, self.load, proven=claim.proven) as body:
                key = claim.verify(scope["method"], target, body)
                check_allowed(key, asked)
                with self.load.request():  # not before: who they are is known only now
                    done = await perform(self.backend, self.limits, key, asked, body)
                    return Answer(200, done, {})
        except PerdureError as error:
            return answer_to(error, now_ms())
        except Disconnected:
            raise
        except Exception as error:  # noqa: BLE001 - a defect must not show, nor stop the server
            return answer_to(defect(error), now_ms())

    def _admit(self, method: str, scope: Scope) -> tuple[Route, str, Claim]:
        """What is asked for, the target that may be signed, and by whom, as far as is known
        before the body. Raises ``Refused``."""
        authorization = header_of(scope, b"authorization")
        if not len(self.keys):
            self.keys.claim(authorization, now_ms())
        path, query = target_of(scope)
        asked = route(method, path)
        claim = self.keys.claim(authorization, now_ms())
        return asked, f"{path}?{query}" if query else path, claim

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        try:
            asked, target, claim = self._admit("GET", scope)
            if asked.operation is not Operation.WAIT:
                raise Refused(Code.NOT_FOUND, "this is no WebSocket")
            check_allowed(claim.verify("GET", target, b""), asked)
            after, milliseconds = wait_of(target_of(scope)[1])
            with self.load.wait():
                await send({"type": "websocket.accept"})
                await wait(self.backend, asked.key, after, milliseconds, receive, send)
        except PerdureError as error:
            answer = answer_to(error, now_ms())
            if "websocket.http.response" not in scope.get("extensions", {}):
                await send({"type": "websocket.close"})
                return
            await send({"type": "websocket.http.response.start", **start_of(answer)})
            await send({"type": "websocket.http.response.body", "body": answer.body})
