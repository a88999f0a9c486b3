"""A service in Python beside Tidegate's own: it answers on their subjects, as a member of their queue groups.

    service.py NATS_URL DESCRIPTOR_SET

It reads the documents that state-manager keeps, out of the same bucket, and streams the words of a prompt as
ai-integration would. `ready` on a line of its own says that it listens; SIGTERM lets it finish what has come.
"""

import asyncio
import json
import signal
import sys

import nats
from nats.js.errors import KeyNotFoundError

import wire


def key_token(text):
    """An id as one token of a key: bytes outside of `[A-Za-z0-9_-]` become `=` and two hex digits; nothing is `_`."""
    plain = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
    return "".join(chr(b) if b in plain else f"={b:02X}" for b in text.encode()) or "_"


class Service:
    def __init__(self, bus, schema, documents):
        self.bus, self.schema, self.documents = bus, schema, documents

    async def get_state(self, message):
        request = self.schema.message("state_manager.v1.GetStateRequest").FromString(message.data)
        reply = self.schema.message("state_manager.v1.GetStateResponse")()
        wire.echo_meta(request, reply, "python")
        field = request.WhichOneof("target")
        if field is None:
            wire.set_error(reply, "INVALID_ARGUMENT", "player_id or entity_id is required",
                           field="target", reason="required")
        else:
            kind, name = field.removesuffix("_id"), getattr(request, field)
            record = await self.record(".".join(map(key_token, (request.meta.tenant_id, kind, name))))
            if record is None:
                wire.set_error(reply, "NOT_FOUND", f"the state of {name} does not exist", field=field)
            else:
                reply.state.update(record["value"]["state"])
                reply.version = record["version"]
                reply.updated_at.FromMilliseconds(record["updated_ms"])
        await self.send(message.reply, reply)

    async def record(self, key):
        try:
            record = json.loads((await self.documents.get(key)).value)
        except KeyNotFoundError:
            return None
        return record if record["value"] is not None else None

    async def infer(self, message):
        """One chunk a word; the last one says how it ended. No control subject, so no credit is asked for."""
        request = self.schema.message("ai_integration.v1.LLMInferenceRequest").FromString(message.data)
        generation, words = f"gen_{request.meta.request_id}", request.prompt.split()
        for index, word in enumerate(words or [""]):
            chunk = self.schema.message("ai_integration.v1.LLMStreamChunk")(generation_id=generation, index=index)
            chunk.is_final = index + 1 >= len(words)
            if index == 0 or chunk.is_final:
                wire.echo_meta(request, chunk, "python")
            if not words:
                wire.set_error(chunk, "INVALID_ARGUMENT", "prompt is required", field="prompt", reason="required")
            elif word == "fail":
                chunk.is_final = True
                wire.set_error(chunk, "UNAVAILABLE", "the model has gone", retry_after_ms="1500")
            else:
                chunk.output_text_delta = word if chunk.is_final else f"{word} "
                chunk.finish_reason = "stop" if chunk.is_final else ""
            await self.send(message.reply, chunk)
            if chunk.is_final:
                return

    async def send(self, to, message):
        more = {}
        if message.HasField("error"):
            # For general tools; the field in the message decides.
            more = {"Nats-Service-Error-Code": str(message.error.code), "Nats-Service-Error": message.error.message}
        headers = wire.headers(message.DESCRIPTOR.full_name, **more)
        await self.bus.publish(to, message.SerializeToString(), headers=headers)


async def main(url, descriptors):
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    bus = await nats.connect(url)
    service = Service(bus, wire.Schema(descriptors), await bus.jetstream().key_value("tg_state"))
    subscriptions = [
        await bus.subscribe("svc.state.manager.v1.get", queue="q.state", cb=service.get_state),
        await bus.subscribe("svc.ai.llm.v1.infer", queue="q.ai.llm.infer", cb=service.infer),
    ]
    await bus.flush()
    print("ready", flush=True)
    await ended.wait()
    # Before the connection's own drain, which also ends the inbox that answers of the bucket come to.
    for subscription in subscriptions:
        await subscription.drain()
    await bus.drain()


asyncio.run(main(*sys.argv[1:]))
