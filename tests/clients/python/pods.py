"""A client of Forestay's typed gRPC door: list, create, watch and delete pods over mTLS.

The code it imports is generated from proto/ (see docs/clients.md):

    pods.py --kubeconfig admin.kubeconfig list
    pods.py --server 127.0.0.1:6443 --ca ca.crt --cert admin.crt --key admin.key list
    pods.py ... create NAME [--image IMAGE]
    pods.py ... watch [--seconds N]
    pods.py ... delete NAME
    pods.py ... check        # all of it, with assertions; exit code 0 where every one holds
"""

import argparse
import base64
import sys
import threading
import time

import grpc
import yaml
from grpc_status import rpc_status

from forestay.api.v1 import object_pb2, objects_pb2, objects_pb2_grpc
from k8s.api.core import v1_pb2 as core
from k8s.api.meta import v1_pb2 as meta

# Every unary call is bounded; a watch is bounded by whoever reads it.
CALL_SECONDS = 10
EVENT_NAMES = {value.number: value.name for value in objects_pb2.WatchEvent.Type.DESCRIPTOR.values}


def from_kubeconfig(path):
    """server, CA, certificate and key of the current context."""
    with open(path) as file:
        config = yaml.safe_load(file)
    named = lambda kind, name: next(entry[kind] for entry in config[kind + "s"] if entry["name"] == name)
    context = named("context", config["current-context"])
    cluster, user = named("cluster", context["cluster"]), named("user", context["user"])
    pem = lambda entry, key: base64.b64decode(entry[key + "-data"])
    return (
        cluster["server"].removeprefix("https://"),
        pem(cluster, "certificate-authority"),
        pem(user, "client-certificate"),
        pem(user, "client-key"),
    )


def from_files(server, ca, cert, key):
    read = lambda path: open(path, "rb").read()
    return server, read(ca), read(cert), read(key)


def connect(server, ca, cert, key):
    """A channel that trusts the cluster's CA and shows a client certificate; all three are PEM."""
    credentials = grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)
    # Lists come in chunks, but one object may be larger than gRPC's default of 4 MiB allows.
    return grpc.secure_channel(server, credentials, options=[("grpc.max_receive_message_length", 16 << 20)])


def kubernetes_status(error):
    """The Kubernetes Status that a failed call carries: reason, message, details."""
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        found = meta.Status()
        if detail.Is(meta.Status.DESCRIPTOR):
            detail.Unpack(found)
            return found
    return None


class Pods:
    """The pods of one namespace."""

    def __init__(self, channel, namespace):
        self.objects = objects_pb2_grpc.ObjectsStub(channel)
        self.namespace = namespace

    def target(self, name=""):
        return objects_pb2.Target(group="", resource="pods", namespace=self.namespace, name=name)

    def list(self):
        """All pods, and the revision they are the state of."""
        pods, revision = [], 0
        for chunk in self.objects.List(objects_pb2.ListRequest(target=self.target()), timeout=CALL_SECONDS):
            revision = chunk.revision
            pods.extend(item.pod for item in chunk.items)
        return pods, revision

    def get(self, name):
        return self.objects.Get(objects_pb2.GetRequest(target=self.target(name)), timeout=CALL_SECONDS).pod

    def create(self, name, image):
        pod = core.Pod(
            metadata=meta.ObjectMeta(name=name, namespace=self.namespace, labels={"made-by": "python"}),
            spec=core.PodSpec(containers=[core.Container(name="main", image=image)]),
        )
        request = objects_pb2.CreateRequest(target=self.target(), object=object_pb2.Object(pod=pod))
        return self.objects.Create(request, timeout=CALL_SECONDS).pod

    def delete(self, name, grace_seconds=None):
        options = meta.DeleteOptions(grace_period_seconds=grace_seconds)
        request = objects_pb2.DeleteRequest(target=self.target(name), options=options)
        return self.objects.Delete(request, timeout=CALL_SECONDS)

    def watch(self, from_revision=0, seconds=None):
        """The stream of WatchResponse: the present state first where `from_revision` is 0."""
        watched = objects_pb2.WatchSet(target=self.target(), from_revision=from_revision)
        return self.objects.Watch(objects_pb2.WatchRequest(sets=[watched]), timeout=seconds)


def show(event):
    pod = event.object.pod
    print(f"{EVENT_NAMES[event.type]:9} {pod.metadata.name:32} {pod.status.phase:10} rv={pod.metadata.resource_version}", flush=True)


def watch(pods, seconds):
    try:
        for response in pods.watch(seconds=seconds):
            for event in response.events:
                show(event)
            if response.synced:
                print(f"-- in step at revision {response.revision}", flush=True)
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
            raise


class Watcher(threading.Thread):
    """Reads a watch in the background and lets others wait for what it has seen."""

    def __init__(self, stream):
        super().__init__(daemon=True)
        self.stream = stream
        self.seen = []
        self.revision = 0
        self.synced = False
        self.error = None
        self.changed = threading.Condition()
        self.start()

    def run(self):
        try:
            for response in self.stream:
                with self.changed:
                    assert response.revision >= self.revision, "revisions go forward"
                    self.revision = response.revision
                    self.synced |= response.synced
                    self.seen.extend(response.events)
                    self.changed.notify_all()
        except grpc.RpcError as error:
            with self.changed:
                self.error = error
                self.changed.notify_all()

    def wait(self, what, holds):
        deadline = time.monotonic() + 30
        with self.changed:
            while not holds(self):
                assert self.error is None, f"the watch ended while waiting for {what}: {self.error}"
                assert self.changed.wait(deadline - time.monotonic()), f"30 s passed waiting for {what}"

    def saw(self, event_type, name):
        return any(event.type == event_type and event.object.pod.metadata.name == name for event in self.seen)


def refused(code, reason, call):
    try:
        call()
    except grpc.RpcError as error:
        status = kubernetes_status(error)
        assert error.code() == code, f"code {error.code()}, not {code}: {error.details()}"
        assert status is not None and status.reason == reason, f"the Status says {status}"
        print(f"refused as it should be: {reason}: {status.message}")
        return
    raise AssertionError(f"the call should have been refused with {reason}")


def check(pods, image):
    name = f"python-{time.time_ns():x}"
    before, revision = pods.list()
    assert revision > 0, "a list names its revision"
    assert all(pod.metadata.name != name for pod in before)

    from_now = Watcher(pods.watch(from_revision=revision))
    from_start = Watcher(pods.watch())
    from_start.wait("the present state", lambda watcher: watcher.synced)

    created = pods.create(name, image)
    assert created.metadata.name == name and created.metadata.uid and created.metadata.creation_timestamp.seconds
    assert int(created.metadata.resource_version) > revision
    assert created.metadata.labels["made-by"] == "python"
    for watcher in (from_now, from_start):
        watcher.wait("the new pod", lambda watcher: watcher.saw(objects_pb2.WatchEvent.ADDED, name))

    assert pods.get(name).metadata.uid == created.metadata.uid
    assert name in [pod.metadata.name for pod in pods.list()[0]]
    refused(grpc.StatusCode.ALREADY_EXISTS, "AlreadyExists", lambda: pods.create(name, image))
    refused(grpc.StatusCode.NOT_FOUND, "NotFound", lambda: pods.get(name + "-other"))
    refused(grpc.StatusCode.INVALID_ARGUMENT, "Invalid", lambda: pods.create("No_Name!", image))

    pods.delete(name, grace_seconds=0)
    for watcher in (from_now, from_start):
        watcher.wait("the pod's end", lambda watcher: watcher.saw(objects_pb2.WatchEvent.DELETED, name))
    refused(grpc.StatusCode.NOT_FOUND, "NotFound", lambda: pods.get(name))
    print(f"python: listed, created, watched and deleted {name}")


def arguments():
    parser = argparse.ArgumentParser(description="Pods over Forestay's gRPC door")
    parser.add_argument("--kubeconfig", help="takes server and certificates from here")
    parser.add_argument("--server", help="host:port of the API server")
    parser.add_argument("--ca", help="the cluster CA's certificate, PEM")
    parser.add_argument("--cert", help="the client's certificate, PEM")
    parser.add_argument("--key", help="the client's key, PEM")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--image", default="forestay/hello:latest")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list")
    verbs.add_parser("create").add_argument("name")
    verbs.add_parser("watch").add_argument("--seconds", type=float)
    verbs.add_parser("delete").add_argument("name")
    verbs.add_parser("check")
    args = parser.parse_args()
    if not args.kubeconfig and not (args.server and args.ca and args.cert and args.key):
        parser.error("give --kubeconfig, or --server with --ca, --cert and --key")
    return args


def main():
    args = arguments()
    given = from_kubeconfig(args.kubeconfig) if args.kubeconfig else from_files(args.server, args.ca, args.cert, args.key)
    with connect(*given) as channel:
        pods = Pods(channel, args.namespace)
        try:
            if args.verb == "list":
                for pod in pods.list()[0]:
                    print(f"{pod.metadata.name:32} {pod.status.phase:10} {pod.spec.node_name}")
            elif args.verb == "create":
                print("created", pods.create(args.name, args.image).metadata.name)
            elif args.verb == "watch":
                watch(pods, args.seconds)
            elif args.verb == "delete":
                gone = pods.delete(args.name).gone
                print("deleted" if gone else "going", args.name)
            else:
                check(pods, args.image)
        except grpc.RpcError as error:
            status = kubernetes_status(error)
            sys.exit(f"{error.code().name}: {status.message if status else error.details()}")


main()
