"""A client in Python with the conventions of the SDK that Tidegate's services were first called by.

    client.py NATS_URL DESCRIPTOR_SET

It takes one JSON object a line and answers each by one line:

    {"call": SUBJECT, "request": [TYPE, JSON], "reply": TYPE, "key"?, "meta"?}       {"headers", "reply"}
    {"call": SUBJECT, "bytes": BASE64, "reply": TYPE}                                {"headers", "reply"}
    {"stream": SUBJECT, "request": [TYPE, JSON], "chunk": TYPE, "most"?, "meta"?}    {"chunks": [{"headers", "chunk"}]}
    {"events": [STREAM, SUBJECT], "count": NUMBER}                                   {"events": [{"headers", "event", "payload"}]}

A call that brings no reply at all is answered by {"failed": NAME OF THE EXCEPTION}.
"""

import asyncio
import base64
import json
import sys

import nats

import wire

PATIENCE_S = 20


class Client:
    def __init__(self, bus, schema):
        self.bus, self.schema = bus, schema

    def payload(self, row):
        """The bytes of a request and its headers. The key of a write stands in both."""
        if "bytes" in row:
            return base64.b64decode(row["bytes"]), None
        name, body = row["request"]
        key = {"idempotency_key": row["key"]} if "key" in row else {}
        message = self.schema.from_json(name, body | {"meta": wire.new_meta(row.get("meta", {}) | key)})
        more = {"Nats-Msg-Id": row["key"]} if "key" in row else {}
        return message.SerializeToString(), wire.headers(name, **more)

    def printed(self, name, data):
        return self.schema.to_json(self.schema.message(name).FromString(data))

    async def call(self, row):
        payload, headers = self.payload(row)
        message = await self.bus.request(row["call"], payload, timeout=PATIENCE_S, headers=headers)
        return {"headers": dict(message.headers or {}), "reply": self.printed(row["reply"], message.data)}

    async def stream(self, row):
        """Chunks until the final one, or until there are enough: the inbox is then left, as a caller that has gone."""
        payload, headers = self.payload(row)
        inbox, chunks = self.bus.new_inbox(), []
        subscription = await self.bus.subscribe(inbox)
        await self.bus.publish(row["stream"], payload, reply=inbox, headers=headers)
        while len(chunks) < row.get("most", sys.maxsize):
            message = await subscription.next_msg(timeout=PATIENCE_S)
            if (message.headers or {}).get("Status") == "503":
                raise nats.errors.NoRespondersError
            if "Stream-Heartbeat" in (message.headers or {}):
                continue
            chunk = self.printed(row["chunk"], message.data)
            if chunk.get("index", 0) != len(chunks):
                raise ValueError(f"chunk {chunk.get('index', 0)} came where {len(chunks)} was due")
            chunks.append({"headers": dict(message.headers or {}), "chunk": chunk})
            if chunk.get("is_final"):
                break
        await subscription.unsubscribe()
        return {"chunks": chunks}

    async def events(self, row):
        """The first events of a stream on a subject, each with its domain message."""
        log, subject = row["events"]
        consumer = await self.bus.jetstream().pull_subscribe(subject, stream=log)
        events = []
        while len(events) < row["count"]:
            for message in await consumer.fetch(row["count"] - len(events), timeout=PATIENCE_S):
                event = self.schema.message("event_bus.v1.GameEvent").FromString(message.data)
                payload = self.printed(event.metadata["payload_type"], event.payload)
                event.ClearField("payload")
                events.append({"headers": message.headers, "event": self.schema.to_json(event), "payload": payload})
                await message.ack()
        await consumer.unsubscribe()
        return {"events": events}

    async def answer(self, row):
        way = next(way for way in ("call", "stream", "events") if way in row)
        try:
            return await getattr(self, way)(row)
        except nats.errors.Error as error:
            return {"failed": type(error).__name__}


async def main(url, descriptors):
    client = Client(await nats.connect(url), wire.Schema(descriptors))
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await client.answer(json.loads(line))), flush=True)
    await client.bus.close()


asyncio.run(main(*sys.argv[1:]))
