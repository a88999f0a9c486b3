"""A stand-in for prometheus-nats-exporter, which no package registry has: names and labels of v0.20.1 with `-prefix=nats
-use_internal_server_name -varz -healthz -jsz=all`, as far as alerts and dashboard use them, from a real server."""

import contextlib
import http.server
import threading

import processes

# Names beside those of /varz, from collector/jsz.go and collector/healthz.go.
OTHERS = {"nats_healthz_status", "nats_healthz_status_value", "nats_server_total_message_bytes", "nats_server_max_storage",
          "nats_stream_total_messages", "nats_stream_total_bytes", "nats_consumer_num_pending",
          "nats_consumer_num_ack_pending", "nats_consumer_num_redelivered"}


def flattened(prefix, value):
    """name → number, as the exporter makes them of /varz; counts by path (`http_req_stats`) have no such name."""
    if isinstance(value, dict):
        named = [(key, inner) for key, inner in value.items() if not key.startswith("/")]
        return {name: number for key, inner in named for name, number in flattened(f"{prefix}_{key}", inner).items()}
    return {prefix: value} if isinstance(value, (int, float)) and not isinstance(value, bool) else {}


def leads(cluster, name):
    """Whether a server leads what has this `cluster`; alone it leads everything."""
    return str(not cluster or cluster.get("leader") == name).lower()


def rows(monitoring):
    """(name, labels, number) of everything."""
    varz = processes.json_of(monitoring + "/varz")
    name = varz["server_name"]
    server = {"server_id": name}
    yield from ((metric, server, number) for metric, number in flattened("nats_varz", varz).items())
    is_well = processes.json_of(monitoring + "/healthz")["status"] == "ok"
    yield "nats_healthz_status", server, int(is_well)
    yield "nats_healthz_status_value", server, int(is_well)
    found = processes.json_of(monitoring + "/jsz?consumers=true&config=true&raft=true")
    yield "nats_server_total_message_bytes", server, found["bytes"]
    yield "nats_server_max_storage", server, found["config"]["max_storage"]
    for account in found["account_details"]:
        for stream in account.get("stream_detail", []):
            labels = server | {"account": account["name"], "stream_name": stream["name"],
                               "is_stream_leader": leads(stream.get("cluster"), name)}
            yield "nats_stream_total_messages", labels, stream["state"]["messages"]
            yield "nats_stream_total_bytes", labels, stream["state"]["bytes"]
            for consumer in stream.get("consumer_detail", []):
                own = labels | {"consumer_name": consumer["name"], "is_consumer_leader": leads(consumer.get("cluster"), name)}
                yield "nats_consumer_num_pending", own, consumer["num_pending"]
                yield "nats_consumer_num_ack_pending", own, consumer["num_ack_pending"]
                yield "nats_consumer_num_redelivered", own, consumer["num_redelivered"]


def text(monitoring):
    """Prometheus' text form; names in our tables are free of what would need escapes."""
    def line(name, labels, number):
        written = ",".join(f'{key}="{value}"' for key, value in labels.items())
        return f"{name}{{{written}}} {number}\n"
    return "".join(line(*row) for row in rows(monitoring))


class Exporter(http.server.ThreadingHTTPServer):
    """Answers /metrics on a free port of loopback until the block's end."""

    def __init__(self, monitoring):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = text(monitoring).encode()
                self.send_response(200)
                self.send_header("content-type", "text/plain; version=0.0.4")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                # Prometheus may be gone, or not have waited.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.address = "127.0.0.1:%d" % self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()
