"""A rolling restart of three servers behind a balancer, under load, with the chart's probes and drain: no request fails."""

import contextlib
import pathlib
import socket
import subprocess
import tempfile
import time
import unittest

from chart import BUCKET, find, render
from fleet import Fleet, Load, until
from machine import HELM, SERVER, free_port, needs
from replica import Replica

# Seconds until every node knows that a pod is leaving. The chart's hook must wait for longer.
PROPAGATION = 2


class Balancer:
    """haproxy as a Service is: connections are spread, one that is there stays, and the chart's readiness probe takes a pod out."""

    def __init__(self, folder: pathlib.Path, pods: list[Replica]) -> None:
        self.address, self.socket = f"127.0.0.1:{free_port()}", folder / "haproxy"
        probe = pods[0].container["readinessProbe"]
        check = f"inter {probe['periodSeconds']}s fall {probe['failureThreshold']} rise 1"
        settings = f"""
global
    stats socket {self.socket} level admin
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout check {probe["timeoutSeconds"]}s
listen service
    bind {self.address}
    balance roundrobin
    option httpchk GET {probe["httpGet"]["path"]}
    http-check expect status 200
"""
        for number, pod in enumerate(pods):
            settings += f"    server pod-{number} {pod.data} check port {pod.admin.rpartition(':')[2]} {check}\n"
        (folder / "haproxy.cfg").write_text(settings)
        self.process = subprocess.Popen(["haproxy", "-db", "-f", folder / "haproxy.cfg"], stderr=subprocess.DEVNULL)
        until("the balancer listens", self.socket.exists)

    def endpoint(self, number: int, state: str) -> None:
        """`ready`, or `drain`: no new connections."""
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(str(self.socket))
            asked.sendall(f"set server service/pod-{number} state {state}\n".encode())
            said = asked.recv(1000).decode().strip()
        assert not said, said

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


@needs(*SERVER, HELM, "haproxy")
class RollingRestart(unittest.TestCase):
    def test_no_request_fails(self):
        """As a Deployment does it that may have one pod more and none less: the next one is ready before the last one leaves."""
        strategy = find(render(BUCKET), "Deployment")["spec"]["strategy"]
        self.assertEqual(strategy["rollingUpdate"], {"maxSurge": 1, "maxUnavailable": 0})
        with contextlib.ExitStack() as started:
            folder = pathlib.Path(started.enter_context(tempfile.TemporaryDirectory(prefix="sextant-restart-")))
            fleet = Fleet(folder)
            started.callback(fleet.close)
            old = list(fleet.replicas)
            new = [Replica(old[0].documents, folder / f"pod-{number}", fleet.models) for number in range(3, 6)]
            fleet.replicas += new
            balancer = Balancer(folder, old + new)
            started.callback(balancer.close)
            for number in range(3, 6):
                balancer.endpoint(number, "drain")
            load = Load([balancer.address] * 12, pause=0.05)
            started.callback(load.stop)
            for number, (leaving, coming) in enumerate(zip(old, new)):
                coming.start()
                coming.wait()
                balancer.endpoint(3 + number, "ready")
                asked = len(load.answers)
                with self.subTest(leaving=number):
                    self.assertEqual(leaving.stop(lambda seconds, number=number: self.tell(balancer, number, seconds)), 0)
                    self.assertGreater(len(load.answers), asked + 50, "clients went on while it left")
            time.sleep(2)
            load.stop()
            self.assertEqual(load.failures(), [])
            self.assertGreater(len(load.answers), 1000)

    def tell(self, balancer, number, seconds):
        """What happens while the hook waits: the news that the pod leaves goes round."""
        self.assertGreater(seconds, PROPAGATION)
        time.sleep(PROPAGATION)
        balancer.endpoint(number, "drain")
        time.sleep(seconds - PROPAGATION)


if __name__ == "__main__":
    unittest.main()
