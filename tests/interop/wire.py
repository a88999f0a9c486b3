"""What both scripts need of the wire contract: messages by name out of a descriptor set, headers, context, errors."""

import datetime
import uuid

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

CONTENT_TYPE = "application/x-protobuf"


class Schema:
    """The messages of a FileDescriptorSet, nothing generated."""

    def __init__(self, path):
        with open(path, "rb") as file:
            files = descriptor_pb2.FileDescriptorSet.FromString(file.read()).file
        self._pool = descriptor_pool.DescriptorPool()
        for file in files:
            self._pool.Add(file)

    def message(self, name):
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(name))

    def from_json(self, name, value):
        return json_format.ParseDict(value, self.message(name)(), descriptor_pool=self._pool)

    def to_json(self, message):
        return json_format.MessageToDict(message, preserving_proto_field_name=True, descriptor_pool=self._pool)


def headers(message_type, **more):
    """The headers of a request, a reply or a chunk."""
    return {"content-type": CONTENT_TYPE, "message-type": message_type} | more


def new_meta(given):
    """The context of a request: what the caller gives, and what every request says."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat().replace("+00:00", "Z")
    return {"request_id": str(uuid.uuid4()), "client_id": "python-sdk", "timestamp": now} | given


def echo_meta(request, reply, label):
    """Writes the reply's context: the request's own, the time of the reply, and who answered; reserved labels stay out."""
    reply.meta.CopyFrom(request.meta)
    reply.meta.timestamp.GetCurrentTime()
    for name in ("role", "roles", "origin", "scope", "consistency"):
        if name in reply.meta.labels:
            del reply.meta.labels[name]
    reply.meta.labels["answered_by"] = label


def set_error(reply, code, message, **details):
    """A failed reply: the error in its own field."""
    reply.error.code = reply.error.Code.Value(code)
    reply.error.message = message
    reply.error.details.update(details)
