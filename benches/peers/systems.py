"""The systems that are asked over the network: how each is told the list, started, asked once, and driven by h2load.

Invariant: whoever asks for one answer sends the bytes that h2load sends; what was started is ended.
Not here: which systems are compared and how often (`measure.py`), the list (`lists.py`).
"""
import http.client
import json
import os
import pathlib
import socket
import subprocess
import time

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

TICKS = os.sysconf("SC_CLK_TCK")
START_TIMEOUT = 60
END_TIMEOUT = 20


class Server:
    """A process that serves, until `close`."""

    def __init__(self, command, log, **options):
        with open(log, "wb") as sink:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, **options)
        self.command, self.log = command, pathlib.Path(log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def wait_for(self, ready):
        """What `ready` says as soon as it says anything."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := ready():
                return found
            time.sleep(0.05)
        raise RuntimeError(f"`{self.command[0]}` did not serve: {self.log.read_text()[-2000:]}")

    def processor(self):
        """Processor time so far, in seconds."""
        stat = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(stat[11]) + int(stat[12])) / TICKS


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


class Unary:
    """One method of a gRPC service, with its messages as the service itself describes them."""

    def __init__(self, address, service, method):
        self.url = f"http://{address}/{service}/{method}"
        self.channel = grpc.insecure_channel(address)
        grpc.channel_ready_future(self.channel).result(START_TIMEOUT)
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))
        described = pool.FindServiceByName(service).methods_by_name[method]
        self.request = message_factory.GetMessageClass(described.input_type)
        self.response = message_factory.GetMessageClass(described.output_type)
        # Bytes in, bytes out: what is asked here is what h2load sends.
        self.call = self.channel.unary_unary(f"/{service}/{method}")

    def bytes(self, fields):
        return json_format.ParseDict(fields, self.request()).SerializeToString()

    def answer(self, message):
        """The answer and its size; every other status than OK is raised."""
        answered = self.call(message, timeout=60)
        return self.response.FromString(answered), len(answered)


class GrpcContestant:
    """A question to a gRPC service, which differs in the address only."""

    def __init__(self, name, server, method, question, is_allowed):
        self.name, self.server, self.method = name, server, method
        self.question, self.is_allowed = question, is_allowed

    def ask(self, address):
        return self.is_allowed(self.method.answer(self.method.bytes(self.question(address)))[0])

    def load(self, address, directory):
        """The arguments of h2load, and what is wrong with what it reports after so many requests, if anything."""
        message = self.method.bytes(self.question(address))
        size = self.method.answer(message)[1] + 5
        body = directory / f"{self.name}-{address}.bin".replace(" ", "-").replace(",", "")
        body.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
        headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]

        # An error has no message. Ids in answers grow by some bytes as they are counted up.
        def fault(report, requests):
            short = report.data < requests * size * 0.9
            return f"{report.data} bytes instead of {requests * size}" if short or report.ok != requests else None

        return ["-d", str(body), *headers, self.method.url], fault


def portcullis(binary, rules, directory):
    """The service as it comes, on a directory of its own, told the rules by its own command line."""
    settings = ["--session-max-age", "2s", "--session-idle", "2s", "--limit-active-sessions", "100000000"]
    directory.mkdir()
    log = directory / "portcullis.log"
    server = Server(
        [binary, "serve", "--listen", "127.0.0.1:0", "--data-dir", directory / "data", "--log-format", "json", *settings],
        log)

    def address():
        events = (json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n"))
        return next((event["address"] for event in events if event["message"] == "serving gRPC"), None)

    try:
        at = server.wait_for(address)
        file = directory / "rules.json"
        file.write_text(json.dumps([
            {"action": "ACTION_ALLOW" if rule.allow else "ACTION_DENY", "range": rule.range} for rule in rules]))
        replace = [binary, "rules", "replace", "--file", file, "--server", at]
        subprocess.run(replace, check=True, stdout=subprocess.DEVNULL, timeout=60)
        return server, Unary(at, "portcullis.v1.DecisionService", "Check")
    except BaseException:
        server.close()
        raise


def portcullis_question(connection_type):
    return lambda address: {
        "ip": address, "connectionType": connection_type, "endpoint": "organizations/default",
        "userEmail": "ada@example.com"}


def portcullis_allows(response):
    return response.decision == 1


# Cerbos has no order among rules: a deny wins over every allow. An order is kept by a list in a constant, of which the
# first hit is taken. The address is parsed once, where `inIPAddrRange` would parse it for every range.
def cerbos_in_order(rules):
    return {
        "constants": {"local": {"rules": [{"range": rule.range, "allow": rule.allow} for rule in rules]}},
        "variables": {"local": {
            "address": "ip(R.attr.ip)",
            "matching": "C.rules.filter(rule, cidr(rule.range).containsIP(V.address))"}},
        "rules": [cerbos_rule("size(V.matching) == 0 || V.matching[0].allow")]}


def cerbos_flattened(denied):
    return {
        "constants": {"local": {"denied": denied}},
        "variables": {"local": {"address": "ip(R.attr.ip)"}},
        "rules": [cerbos_rule("!C.denied.exists(range, cidr(range).containsIP(V.address))")]}


def cerbos_rule(expression):
    condition = {"match": {"expr": expression}}
    return {"actions": ["open"], "effect": "EFFECT_ALLOW", "roles": ["user"], "condition": condition}


def cerbos(binary, policy, directory):
    """The service with its audit log off, as it comes, and without a log line for each call."""
    policies = directory / "policies"
    policies.mkdir(parents=True)
    (policies / "terminal.json").write_text(json.dumps({
        "apiVersion": "api.cerbos.dev/v1",
        "resourcePolicy": {"resource": "terminal", "version": "default", **policy}}))
    ports = free_port(), free_port()
    (directory / "cerbos.json").write_text(json.dumps({
        "server": {"httpListenAddr": f"127.0.0.1:{ports[0]}", "grpcListenAddr": f"127.0.0.1:{ports[1]}"},
        "storage": {"driver": "disk", "disk": {"directory": str(policies), "watchForChanges": False}}}))
    command = [binary, "server", f"--config={directory / 'cerbos.json'}", "--log-level=warn"]
    server = Server(command, directory / "cerbos.log", env={**os.environ, "CERBOS_NO_TELEMETRY": "1"})
    try:
        server.wait_for(lambda: accepts(ports[1]))
        return server, Unary(f"127.0.0.1:{ports[1]}", "cerbos.svc.v1.CerbosService", "CheckResources")
    except BaseException:
        server.close()
        raise


def cerbos_question(address):
    resource = {"kind": "terminal", "id": "default", "attr": {"ip": address}}
    return {"principal": {"id": "ada@example.com", "roles": ["user"]},
            "resources": [{"resource": resource, "actions": ["open"]}]}


def cerbos_allows(response):
    return response.results[0].actions["open"] == 1


TYPE = "type.googleapis.com/"


def envoy_typed(name, kind, /, **fields):
    return {"name": name, "typed_config": {"@type": TYPE + kind, **fields}}


def envoy_action(allow):
    action = envoy_typed("decide", "envoy.config.rbac.v3.Action", name="list", action="ALLOW" if allow else "DENY")
    return {"action": action}


def envoy_matcher(ranges, allow):
    split = [one.split("/") for one in ranges]
    prefixes = [{"address_prefix": prefix, "prefix_len": int(length)} for prefix, length in split]
    source = envoy_typed("source", "envoy.extensions.matching.common_inputs.network.v3.SourceIPInput")
    within = envoy_typed(
        "ranges", "envoy.extensions.matching.input_matchers.ip.v3.Ip", cidr_ranges=prefixes, stat_prefix="list")
    return {"predicate": {"single_predicate": {"input": source, "custom_match": within}},
            "on_match": envoy_action(allow)}


def envoy_filter(matchers):
    matcher = {"matcher_list": {"matchers": matchers}, "on_no_match": envoy_action(True)}
    return envoy_typed("envoy.filters.http.rbac", "envoy.extensions.filters.http.rbac.v3.RBAC", matcher=matcher)


class EnvoyContestant:
    """An Envoy that answers every request itself, behind the filters; the client's address is the one that the proxy in
    front of it tells."""

    def __init__(self, name, binary, filters, directory, expected):
        directory.mkdir()
        self.name, self.port, self.expected = name, free_port(), expected
        router = envoy_typed("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router")
        host = {"name": "all", "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]}
        manager = envoy_typed(
            "envoy.filters.network.http_connection_manager",
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            stat_prefix="in", use_remote_address=True, xff_num_trusted_hops=1,
            http_filters=[*filters, router], route_config={"virtual_hosts": [host]})
        listener = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": self.port}},
                    "filter_chains": [{"filters": [manager]}]}
        config = directory / "envoy.json"
        config.write_text(json.dumps({"static_resources": {"listeners": [listener]}}))
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
        self.server = Server([binary, "-c", config, *options], directory / "envoy.log")
        try:
            self.server.wait_for(lambda: accepts(self.port))
        except BaseException:
            self.server.close()
            raise

    def ask(self, address):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/", headers={"x-forwarded-for": address})
        status = connection.getresponse().status
        connection.close()
        if status not in (200, 403):
            raise RuntimeError(f"Envoy answered {status}")
        return status == 200

    def load(self, address, _):
        allowed = self.expected(address)

        def fault(report, requests):
            right = report.ok if allowed else report.refused
            return f"{right} of {requests} answers are right" if right != requests else None

        return ["-H", f"x-forwarded-for: {address}", f"http://127.0.0.1:{self.port}/"], fault
