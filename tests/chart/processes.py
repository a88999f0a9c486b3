"""Programs that tests start on free ports of loopback, and end: nats-server, tidegate, prometheus."""

import json
import os
import pathlib
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml


def wait_for(holds, seconds=20):
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"not so after {seconds} s")
        time.sleep(0.05)


def status(url, data=None, verb=None):
    """HTTP status; 0 where nobody answers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, method=verb), timeout=10) as answer:
            answer.read()
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def text_of(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def json_of(url):
    return json.loads(text_of(url))


def query(prometheus, expression):
    """The rows of an instant query; none while it is not there."""
    try:
        answer = json_of(f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
    except OSError:
        return []
    return answer["data"]["result"]


class Group:
    """Processes with a folder of their own, ended together."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.running, self.readers = [], []
        return self

    def __exit__(self, *_):
        for process in self.running:
            process.kill()
            process.wait()
        for reader, pipe in self.readers:
            reader.join()
            pipe.close()
        self.folder.cleanup()

    def start(self, command, **options):
        process = subprocess.Popen([str(part) for part in command], cwd=self.folder.name, **options)
        self.running.append(process)
        return process

    def nats(self, program, **env):
        """Its URL, and that of its monitoring."""
        folder = pathlib.Path(self.folder.name)
        self.start([program, "--name", "nats-0", "-a", "127.0.0.1", "-p", "-1", "-m", "-1", "-js", "-sd", folder / "js",
                    "--ports_file_dir", folder], stderr=subprocess.DEVNULL, env=os.environ | env)
        wait_for(lambda: list(folder.glob("*.ports")))
        ports = json.loads(next(folder.glob("*.ports")).read_text())
        return ports["nats"][0], ports["monitoring"][0]

    def logged(self, command, *names, **options):
        """Starts a program of ours; the addresses that its log names."""
        process = self.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options)
        for line in process.stderr:
            fields = json.loads(line).get("fields", {}) if line.startswith("{") else {"error": line}
            if "error" in fields:
                raise AssertionError(f"{command[0]}: {fields['error']}")
            if all(name in fields for name in names):
                self.readers.append((threading.Thread(target=process.stderr.read, daemon=True), process.stderr))
                self.readers[-1][0].start()
                return {name: fields[name].removeprefix("Some(").removesuffix(")") for name in names}
        raise AssertionError(f"{command[0]} ended with {process.wait()}")

    def prometheus(self, program, targets, interval):
        """A Prometheus that scrapes these addresses so often; its URL."""
        config = pathlib.Path(self.folder.name, "prometheus.yaml")
        scrape = {"job_name": "tidegate", "static_configs": [{"targets": targets}]}
        config.write_text(yaml.safe_dump({"global": {"scrape_interval": interval, "scrape_timeout": interval},
                                          "scrape_configs": [scrape]}))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = "127.0.0.1:%d" % free.getsockname()[1]
        self.start([program, f"--config.file={config}", f"--web.listen-address={address}",
                    f"--storage.tsdb.path={self.folder.name}/tsdb"], stderr=subprocess.DEVNULL)
        return f"http://{address}"
