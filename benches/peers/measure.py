"""Compares Portcullis with other policy engines on one ordered list, and prints tables for docs/performance.md.

usage: measure.py PORTCULLIS INPROCESS CERBOS ENVOY H2LOAD
Programs; `-` for one that is not to be had, which is then said. `run` installs them and starts this.

Invariant: no time is taken before all give the right answers; what is compared takes turns within one run; what was
started is ended, also where something fails.
Not here: how each system is told the list (`systems.py`, `inprocess/`), what the list is (`lists.py`).
"""
import contextlib
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import systems
from lists import List, scan, text

SIZES = [10, 1_000, 10_000]
# Addresses that every system is asked before it is measured.
COMPARED = 128
# Addresses for those that are asked in process: more than branch predictors remember.
ASKED_IN_PROCESS = 32_768
ROUNDS = 5
# Connections, each of a process of h2load that asks about an address of its own; and requests in flight on each.
CONNECTIONS = 8
IN_FLIGHT = 8
ROUND_SECONDS = 1.2
ROUND_TIMEOUT = 120
ENDING = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


class Report(NamedTuple):
    """What h2load says."""

    ok: int
    refused: int
    data: int


class Round(NamedTuple):
    """One round of one system."""

    throughput: float
    # Processor time of the server for each request, in microseconds.
    processor: float


def parse(output):
    statuses = re.search(r"status codes: (\d+) 2xx, \d+ 3xx, (\d+) 4xx", output)
    data = re.search(r"\((\d+)\) data", output)
    if not statuses or not data:
        raise RuntimeError(f"h2load says: {output}")
    return Report(int(statuses[1]), int(statuses[2]), int(data[1]))


def drive(h2load, contestant, loads, requests):
    """So many requests for each load, all loads at once."""
    options = ["-n", str(requests), "-c", "1", "-m", str(IN_FLIGHT), "-t", "1"]
    before, begun = contestant.server.processor(), time.monotonic()
    with contextlib.ExitStack() as stack:
        clients = []
        for arguments, _ in loads:
            client = subprocess.Popen(
                [h2load, *options, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            stack.callback(client.wait)
            stack.callback(client.kill)
            clients.append(client)
        outputs = [client.communicate(timeout=ROUND_TIMEOUT)[0] for client in clients]
    elapsed, processor = time.monotonic() - begun, contestant.server.processor() - before
    for output, (_, fault) in zip(outputs, loads):
        if wrong := fault(parse(output), requests):
            raise RuntimeError(f"{contestant.name}: {wrong}")
    total = requests * len(loads)
    return Round(total / elapsed, processor / total * 1e6)


def calibrate(h2load, contestant, loads):
    """Warms it up, and tells how many requests for each load fill a round."""
    requests = IN_FLIGHT
    while True:
        seconds = requests * len(loads) / drive(h2load, contestant, loads, requests).throughput
        if seconds > ROUND_SECONDS / 4:
            return max(IN_FLIGHT, round(requests * ROUND_SECONDS / seconds))
        requests *= 4


def measure(h2load, contestants, asked, directory):
    """For each contestant its rounds, taken by turns; every round asks about other addresses."""
    batches = [asked[at * CONNECTIONS:(at + 1) * CONNECTIONS] for at in range(ROUNDS)]
    loads = [[[one.load(text(address), directory) for address in batch] for batch in batches] for one in contestants]
    requests = [calibrate(h2load, one, of[0]) for one, of in zip(contestants, loads)]
    rounds = [[] for _ in contestants]
    for at in range(ROUNDS):
        for index, one in enumerate(contestants):
            rounds[index].append(drive(h2load, one, loads[index][at], requests[index]))
    return dict(zip((one.name for one in contestants), rounds))


def compare(contestants, rules, asked):
    """Every contestant is asked about every address; wrong answers end the run."""
    right = [scan(rules, address) for address in asked]
    reversed_list = sum(scan(rules[::-1], address) != answer for address, answer in zip(asked, right))
    print(f"\n{len(rules):,} ranges: {len(asked)} addresses, {right.count(False)} of them denied; "
          f"with the list turned round {reversed_list} would be decided otherwise")
    wrong = 0
    for one in contestants:
        differences = [address for address, answer in zip(asked, right) if one.ask(text(address)) != answer]
        print(f"  {one.name}: {len(asked)} compared, {len(differences)} differences")
        wrong += len(differences)
    if wrong:
        sys.exit("not measured: the answers differ")


def start_grpc(stack, programs, ranges, denied, directory):
    """The services that are asked by gRPC."""
    server, method = systems.portcullis(programs["portcullis"], ranges.rules, directory / "portcullis")
    stack.enter_context(server)
    stack.callback(method.channel.close)
    started = [
        systems.GrpcContestant(
            f"Portcullis, {name}", server, method, systems.portcullis_question(kind), systems.portcullis_allows)
        for name, kind in [("preview", "CONNECTION_TYPE_PREVIEW"), ("shell", "CONNECTION_TYPE_SHELL")]]
    if programs["cerbos"] is None:
        return started
    policies = [("in order", systems.cerbos_in_order(ranges.rules)), ("flattened", systems.cerbos_flattened(denied))]
    for name, policy in policies:
        server, method = systems.cerbos(programs["cerbos"], policy, directory / f"cerbos {name}")
        stack.enter_context(server)
        stack.callback(method.channel.close)
        started.append(systems.GrpcContestant(
            f"Cerbos, {name}", server, method, systems.cerbos_question, systems.cerbos_allows))
    return started


def start_envoy(stack, programs, ranges, denied, directory):
    """Envoys without a filter, with the list, and with the flattened one."""
    if programs["envoy"] is None:
        return []
    in_order = systems.envoy_filter([systems.envoy_matcher([rule.range], rule.allow) for rule in ranges.rules])
    flattened = systems.envoy_filter([systems.envoy_matcher(denied, False)])
    filters = [("no filter", []), ("in order", [in_order]), ("flattened", [flattened])]
    allowed = {text(address): scan(ranges.rules, address) for address in load_addresses(ranges)}
    started = []
    for name, chain in filters:
        def expected(address, always=not chain):
            return always or allowed[address]
        one = systems.EnvoyContestant(
            f"Envoy, {name}", programs["envoy"], chain, directory / f"envoy {name}", expected)
        stack.enter_context(one.server)
        started.append(one)
    return started


def load_addresses(ranges):
    return ranges.questions(ROUNDS * CONNECTIONS)


def over_network(programs, size, directory):
    """The rounds of every system that is asked over the network, by name."""
    ranges = List(size)
    denied = ranges.flattened()
    asked = ranges.questions(COMPARED)
    with contextlib.ExitStack() as stack:
        grpc_systems = start_grpc(stack, programs, ranges, denied, directory)
        envoys = start_envoy(stack, programs, ranges, denied, directory)
        compare([*grpc_systems, *envoys[1:]], ranges.rules, asked)
        print(f"  the list is {len(denied):,} denied ranges when flattened", flush=True)
        if programs["h2load"] is None:
            return {}
        return measure(programs["h2load"], [*grpc_systems, *envoys], load_addresses(ranges), directory)


def in_process(program, directory):
    """The lines that the program in `inprocess/` prints, each as its fields."""
    for size in SIZES:
        ranges = List(size)
        lines = [f"{'allow' if rule.allow else 'deny'} {rule.range}\n" for rule in ranges.rules]
        (directory / f"rules-{size}").write_text("".join(lines))
        (directory / f"denied-{size}").write_text("".join(f"{one}\n" for one in ranges.flattened()))
        asked = ranges.questions(ASKED_IN_PROCESS)
        if any(scan(ranges.rules, address) != ranges.allowed(address) for address in asked[:COMPARED]):
            sys.exit("the right answers contradict each other")
        lines = [f"{'allow' if ranges.allowed(address) else 'deny'} {text(address)}\n" for address in asked]
        (directory / f"asked-{size}").write_text("".join(lines))
    command = [program, str(directory), str(COMPARED), str(ROUNDS), *map(str, SIZES)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300)
    if done.returncode:
        sys.exit(f"`inprocess` failed:\n{done.stdout}")
    return [line.split("\t") for line in done.stdout.splitlines()]


def number(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3g}"


def spread(values):
    """The median, the least and the greatest."""
    return f"{number(statistics.median(values))} ({number(min(values))}–{number(max(values))})"


def row(*cells):
    print("| " + " | ".join(cells) + " |")


def head(*cells):
    print()
    row(*cells)
    print("|---" * len(cells) + "|")


def print_grpc(results):
    head("ranges", "system", "requests/s", "server CPU µs a request", "requests/s ÷ preview", "CPU ÷ preview")
    for size, of in results.items():
        ours = of.get("Portcullis, preview", [])
        for name, rounds in of.items():
            if name.startswith("Envoy"):
                continue
            ratios = [spread([getattr(round, field) / getattr(our, field) for round, our in zip(rounds, ours)])
                      for field in Round._fields]
            times = [spread([getattr(round, field) for round in rounds]) for field in Round._fields]
            row(f"{size:,}", name, *times, *ratios)


def print_in_process(lines):
    head("ranges", "system", "µs an evaluation", "÷ Portcullis")
    for size, name, _, _, times, ratios in lines:
        times, ratios = ([float(value) for value in values.split()] for values in (times, ratios))
        row(f"{int(size):,}", name, spread(times), spread(ratios))


def print_envoy(results, programs):
    head("ranges", "filter", "Envoy CPU µs a request", "more than without a filter")
    for size, of in results.items():
        without = of.get("Envoy, no filter", [])
        for name, rounds in of.items():
            if name.startswith("Envoy"):
                more = [round.processor - none.processor for round, none in zip(rounds, without)]
                times = spread([round.processor for round in rounds])
                row(f"{size:,}", name.removeprefix("Envoy, "), times, spread(more) if any(more) else "")
    if programs["envoy"] is None:
        print("skipped: Envoy's RBAC filter, for Envoy could not be installed")
    print("skipped: Envoy asking Portcullis, for Portcullis does not answer Envoy yet")


def end(*_):
    """Leaves by way of everything that ends what was started, and is not disturbed in that."""
    for told in ENDING:
        signal.signal(told, signal.SIG_IGN)
    sys.exit("told to end")


def main():
    names = ["portcullis", "inprocess", "cerbos", "envoy", "h2load"]
    programs = {name: None if path == "-" else path for name, path in zip(names, sys.argv[1:], strict=True)}
    for told in ENDING:
        signal.signal(told, end)
    with tempfile.TemporaryDirectory(prefix="peers-") as temporary:
        directory = pathlib.Path(temporary)
        lines = in_process(programs["inprocess"], directory)
        for size, name, compared, differences, *_ in lines:
            print(f"in process, {int(size):,} ranges, {name}: {compared} compared, {differences} differences")
        results = {}
        for size in SIZES:
            (directory / str(size)).mkdir()
            results[size] = over_network(programs, size, directory / str(size))
    print(f"\nclient and servers share {os.cpu_count()} cores; medians of {ROUNDS} rounds taken by turns, and the least "
          f"and the greatest; {CONNECTIONS} connections × {IN_FLIGHT} in flight, {CONNECTIONS} addresses at a time")
    print_grpc(results)
    if programs["cerbos"] is None:
        print("skipped: Cerbos, for it could not be installed")
    if programs["h2load"] is None:
        print("skipped: all that is asked over the network, for h2load could not be installed")
    print_in_process(lines)
    print_envoy(results, programs)


if __name__ == "__main__":
    main()
